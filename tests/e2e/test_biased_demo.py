"""The side-by-side demo in miniature: real services, every way to learn, the report; pairs that a panel can judge."""

import json
from contextlib import ExitStack
from dataclasses import replace
from random import Random

import pytest
from rich.console import Console

from trainer.data.lines import write_rows
from trainer.demo import phases
from trainer.demo.biased import show
from trainer.demo.biased.run import side_by_side, sized
from trainer.demo.biased.ways import ways
from trainer.demo.config import DemoConfig, SizesGroup
from trainer.demo.phases import Paths
from trainer.demo.run import Clock, serve_policies
from trainer.simulation.world import compose_mixed, train_prompts

SIZES = SizesGroup(
    documents=150, base_steps=8, demonstrations=80, prompts=40, way_steps=1, way_comparisons=60, trials=2, held_out=8
)
WITH_POLICY = ("ensemble",)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """What came out, and its folder; pairs are composed, as all that a random policy says is the same to people."""
    out = tmp_path_factory.mktemp("biased")
    config = sized(DemoConfig(out=out, annotators="biased", threads=1, progress=False, sizes=SIZES))
    paths, rng = Paths(out), Random(0)
    for phase in (phases.make_data, phases.pretrain, phases.fine_tune):
        phase(config, paths)
    pairs = [(p.text, compose_mixed(p, rng), compose_mixed(p, rng)) for p in train_prompts(60, rng)]
    rows = [{"prompt": prompt, "a": a, "b": b, "label": "tie", "group": prompt} for prompt, a, b in pairs]
    write_rows(paths.comparisons, rows)
    chosen = [replace(way, has_policy=way.name in WITH_POLICY) for way in ways(0.2)]
    with ExitStack() as servers:
        return side_by_side(config, chosen, serve_policies(paths, servers), Clock()), out


def test_every_way_is_measured(done):
    results, out = done
    written = json.loads((out / "results.json").read_text())
    assert list(written["ways"]) == [way.name for way in ways(0.2)]
    assert all(len(way["reward"]["ideas"]) == 20 for way in written["ways"].values())
    assert [name for name, way in written["ways"].items() if way["policy"]] == list(WITH_POLICY)
    assert results.ways["biased"].reward.label_error != results.ways["honest"].reward.label_error


def test_members_disagree_and_others_have_none(done):
    results, _ = done
    before, after = results.ways["ensemble"].policy.doubt
    assert before > 0
    assert after > 0


def test_reliabilities_are_those_of_the_mixed_panel(done):
    results, _ = done
    for name in ("reliability", "majority"):
        names = {each.name.partition("_")[0] for each in results.ways[name].reward.annotators}
        assert names == {"warm", "honest"}
        assert all(each.reliability is not None for each in results.ways[name].reward.annotators)


def test_report_and_terminal_tell_it(done):
    results, out = done
    page = (out / "report.html").read_text()
    assert page.count("<svg") >= 5
    for title in ("Side by side", "What do you think of my business idea", "What no reward model can fix"):
        assert title in page
    policy = results.ways["ensemble"].policy
    before, after = (value / policy.score_std for value in policy.doubt)
    assert f"scores differ by {before:.2f} SD before and {after:.2f} after, in SD of the mean score" in page
    console = Console(record=True, width=160)
    show.show(results, console)
    assert "near misses" in console.export_text()
