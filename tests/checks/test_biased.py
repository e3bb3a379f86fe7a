import json

import pytest

from tests.checks import biased
from trainer.demo.config import DemoConfig, SizesGroup


@pytest.mark.parametrize(("seeds", "most"), [(1, 0), (3, 0), (5, 0), (6, 1), (11, 1), (12, 2)])
def test_a_single_seed_may_not_fail(seeds, most):
    assert biased.allowed(seeds) == most


def write(config, **changes):
    config.out.mkdir(parents=True, exist_ok=True)
    (config.out / "results.json").write_text("{}")
    (config.out / "asked.json").write_text(json.dumps(biased._asked(config) | changes))


def test_an_earlier_run_counts_only_where_it_was_asked_for_the_same(tmp_path):
    config = DemoConfig(out=tmp_path / "0", annotators="biased", sizes=biased.SIZES)
    assert not biased.is_there(config)
    write(config)
    assert biased.is_there(config.model_copy(update={"threads": 7}))
    with pytest.raises(SystemExit, match="holds a run of another sizes: give another --out"):
        biased.is_there(config.model_copy(update={"sizes": SizesGroup(way_steps=1)}))
    write(config, seed=3)
    with pytest.raises(SystemExit, match="another seed"):
        biased.is_there(config)


def test_a_run_that_does_not_say_what_it_was_asked_for_does_not_count(tmp_path):
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(SystemExit, match="another seed, annotators, label_error, sizes"):
        biased.is_there(DemoConfig(out=tmp_path, sizes=biased.SIZES, annotators="biased"))


@pytest.mark.parametrize(
    ("holds", "code"), [((True,), 0), ((False,), 1), ((True, False), 1), ((True,) * 5 + (False,), 0)]
)
def test_the_check_exits_by_what_may_be_missed(tmp_path, monkeypatch, holds, code):
    """Runs that are there, each with one bar and no way."""
    for seed, kept in enumerate(holds):
        config = DemoConfig(out=tmp_path / str(seed), seed=seed, annotators="biased", sizes=biased.SIZES)
        write(config)
        check = {"name": "gold", "value": 0.5, "bar": 0.0, "at_most": False, "holds": kept}
        (config.out / "results.json").write_text(json.dumps({"checks": [check], "ways": {}}))
    words = ["biased", "--out", str(tmp_path), "--seeds", *map(str, range(len(holds)))]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as ended:
        biased.main()
    assert ended.value.code == code
