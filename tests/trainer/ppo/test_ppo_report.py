"""The report of a run, from what its folder holds."""

import itertools
import json

import pytest

from tests.boards import embedded
from trainer.metrics import MetricsWriter, read_metrics
from trainer.ppo.report import DATA, thinned, write_report
from trainer.run_folder import RunFolderError

ROW = {"objective/scores": 0.1, "objective/kl": 1 / 3, "idle/policy_share": 0.25}


def recorded(out, count):
    with MetricsWriter(out) as writer:
        for step in range(1, count + 1):
            writer.log(step, {**ROW, "objective/kl": step / 3})
    return out


def test_a_run_that_goes_on_is_reported_as_far_as_it_is(tmp_path):
    out = recorded(tmp_path, 3)
    sample = {"step": 1, "prompt": "Old?", "completion": "Old.", "score": 1.0}
    newer = {"step": 3, "prompt": "<b>Bold</b>?", "completion": "</script>", "score": -0.5}
    (out / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (sample, newer)) + '{"step": 4, "pro')
    page = write_report(out)
    text = page.read_text("utf-8")
    assert embedded(page, DATA) == read_metrics(out)
    assert "Old." not in text
    assert "&lt;b&gt;Bold&lt;/b&gt;?" in text
    assert "<td>objective/kl</td><td>1</td>" in text
    assert text.count("<svg") == 5  # the frontier, score over √KL, and a plot for each number that there is


def test_before_the_first_step_there_is_nothing_to_report(tmp_path):
    with pytest.raises(RunFolderError, match="no step yet"):
        write_report(recorded(tmp_path, 0))
    with pytest.raises(RunFolderError, match=r"nope holds no metrics.jsonl; give a run's folder"):
        write_report(tmp_path / "nope")


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 20, 21, 35])
def test_long_runs_are_thinned_evenly_and_end_where_they_end(count):
    rows = [{"step": step} for step in range(1, count + 1)]
    kept = [row["step"] for row in thinned(rows, most=10)]
    assert kept[-1:] == [count][: len(rows)]
    assert len(kept) == (count if count <= 10 else -(-count // -(-count // 10)))
    assert len({b - a for a, b in itertools.pairwise(kept)}) <= 1
