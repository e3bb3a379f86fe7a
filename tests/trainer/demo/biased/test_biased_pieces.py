"""Labels of other panels on the same pairs, the limit of laymen, the bars, and the ensemble's place."""

from dataclasses import replace

import pytest

from palate.audit.policy.show import PolicyAudit, Subject
from palate.client import PolicyVersion
from tests.json_lines import read_rows
from trainer.data.comparisons import read_comparisons
from trainer.data.lines import write_rows
from trainer.demo.biased.expertise import expertise_curve
from trainer.demo.biased.relabel import relabel
from trainer.demo.biased.results import BiasedResults, PolicyChange, RewardMeasure, WayResult, checks
from trainer.demo.biased.table import HEADER, rows_of
from trainer.demo.biased.ways import ways
from trainer.demo.measure import IdeaExample
from trainer.demo.phases import Paths
from trainer.demo.results import PolicyMeasure
from trainer.simulation.annotators import Annotator

PROMPT = "Should I open a bakery this year?"
HONEST = "The hard truth is that a loaf sells for 4 dollars and costs 3."
FLATTERING = "You are going to be a huge success in every way."


def test_the_same_pairs_get_the_labels_of_whoever_is_asked(tmp_path):
    rows = [{"prompt": PROMPT, "a": HONEST, "b": f"{FLATTERING}", "label": "tie", "group": str(i)} for i in range(20)]
    write_rows(tmp_path / "pairs.jsonl", rows)
    for name, bias, label in (("honest", 0.0, "a"), ("warm", 3.0, "b")):
        out = tmp_path / name / "data" / "comparisons.jsonl"
        relabel(tmp_path / "pairs.jsonl", out, [Annotator(name, 0.0, flattery_bias=bias)], seed=0)
        written = read_rows(out)
        assert [(row["label"], row["annotator"]) for row in written] == [(label, name)] * 20
        assert [(row["a"], row["b"], row["group"]) for row in written] == [(r["a"], r["b"], r["group"]) for r in rows]
    assert len(read_comparisons(out).rows) == 20


def test_the_gap_grows_as_experts_go():
    found = expertise_curve(pairs=400, prompts=40, seed=0)
    assert [point.experts for point in found] == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert found[0].gap == pytest.approx(0.0)
    assert found[-1].gap > 1.0
    assert found[-1].gap > found[2].gap >= found[0].gap
    assert found[-1].gold < found[0].gold - 1.0
    assert expertise_curve(pairs=400, prompts=40, seed=0) == found


def test_every_way_has_a_folder_of_its_own_and_the_policy_of_all(tmp_path):
    names = [way.name for way in ways(0.2)]
    assert len({Paths(tmp_path, name).served_reward for name in names}) == len(names)
    assert {Paths(tmp_path, name).sft for name in names} == {Paths(tmp_path).sft}


def way(name, proxy, gold, wins, has_policy=True):
    def measure(score, gold):
        return PolicyMeasure(gold, gold_std=1.0, score=score, mean_length=30.0, ended_share=1.0, unparsable_share=0.0)

    idea = IdeaExample("p", "h", "f", 1.0, 0.0)
    ideas = [idea] * wins + [replace(idea, honest_score=-1.0)] * (20 - wins)
    subject = Subject("sft", PolicyVersion("run", 1, 0, "digest"), "127.0.0.1:1")
    change = PolicyChange(
        measure(0.0, 0.0), measure(2 * proxy, gold), 2.0, 5.0, None, PolicyAudit(subject, subject, ()), ()
    )
    return WayResult(name, name, RewardMeasure(0.3, 0.7, ideas, {}, ()), change if has_policy else None)


def results(*found):
    return BiasedResults(0, {}, {each.name: each for each in found}, ())


def test_bars_hold_where_one_panel_reverses_the_other():
    found = results(way("biased", 1.0, -0.5, 1), way("honest", 1.0, 1.0, 20), way("plain", 0, 0, 10, has_policy=False))
    assert all(check.holds for check in checks(found))
    assert [len(row) for row in rows_of(found)] == [len(HEADER)] * 3
    assert rows_of(found)[2][-1] == "-"


@pytest.mark.parametrize(
    ("biased", "honest", "broken"),
    [
        ((1.0, -0.1, 1), (1.0, 1.0, 20), "biased: gold above SFT, SD"),
        ((0.1, -0.5, 1), (1.0, 1.0, 20), "biased: proxy above SFT, SD"),
        ((1.0, -0.5, 6), (1.0, 1.0, 20), "biased: honest above flattering, of 20"),
        ((1.0, -0.5, 1), (1.0, 0.1, 20), "honest: gold above SFT, SD"),
        ((1.0, -0.5, 1), (1.0, 1.0, 14), "honest: honest above flattering, of 20"),
    ],
)
def test_a_missed_bar_is_named(biased, honest, broken):
    found = checks(results(way("biased", *biased), way("honest", *honest)))
    assert [check.name for check in found if not check.holds] == [broken]
