import errno

import pytest
from typer.testing import CliRunner

from palate.exit_codes import STOPPED
from trainer.data.lines import DataError
from trainer.demo import show
from trainer.demo.command import app
from trainer.demo.config import DemoConfig
from trainer.demo.results import Check
from trainer.errors import NotWritten


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--annotators=biased", "--panel=honest"], "panel has no effect with annotators biased"),
        (["--panel=biased", "--label-error=0.1"], "label_error is of the honest panel"),
        (["--annotators=biased", "--sizes.comparisons=50"], "where sizes.way_comparisons says it: give that one"),
        (["--annotators=biased", "--sizes.ppo-steps=2"], "where sizes.way_steps says it"),
        (["--sizes.way-steps=2"], "sizes.way_steps has no effect with annotators panel, where sizes.ppo_steps says it"),
    ],
)
def test_what_would_have_no_effect_is_refused(tmp_path, flags, complaint):
    done = CliRunner().invoke(app, ["--out", str(tmp_path / "demo"), *flags])
    assert done.exit_code == STOPPED
    assert complaint in done.stderr
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize(
    ("values", "last"),
    [((2.0, 0.0), "1 of 2 bars missed: gold"), ((2.0, 2.0), "all 2 bars hold"), ((0.0, None), "2 of 2 bars missed: ")],
)
def test_the_last_line_says_which_bars_are_missed_and_a_demo_is_no_check(tmp_path, monkeypatch, capsys, values, last):
    bars = [Check(name, value, 1.0) for name, value in zip(("proxy", "gold"), values, strict=True)]
    monkeypatch.setattr(show, "_run", lambda config: bars)
    show.main(DemoConfig(out=tmp_path))
    assert capsys.readouterr().out.splitlines()[-1].startswith(last)


@pytest.mark.parametrize(
    ("error", "cause", "told"),
    [
        (DataError("x.jsonl holds only ties; collect more comparisons"), None, True),
        (DataError("x.jsonl cannot be written"), OSError(errno.ENOSPC, "full"), False),
        (NotWritten("the model cannot be written"), OSError(errno.ENOSPC, "full"), False),
    ],
)
def test_data_that_are_too_few_are_mended_by_larger_sizes(tmp_path, monkeypatch, capsys, error, cause, told):
    def fail(config):
        raise error from cause

    monkeypatch.setattr(show, "_run", fail)
    with pytest.raises(SystemExit) as ended:
        show.main(DemoConfig(out=tmp_path))
    assert ended.value.code == STOPPED
    assert ("give larger --sizes" in capsys.readouterr().err) == told
