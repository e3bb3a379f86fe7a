"""Bars are met or not by the measured numbers alone."""

import json
from dataclasses import asdict

import pytest

from palate.audit.policy.show import PolicyAudit, Subject
from palate.client import PolicyVersion
from trainer.demo.measure import Accuracies, IdeaExample
from trainer.demo.results import PolicyMeasure, Results, checks, write_results

SUBJECT = Subject("policy", PolicyVersion("run", 1, 0, "digest"), "127.0.0.1:1")


def results(**changes):
    def measure(gold):
        return PolicyMeasure(gold, gold_std=1.0, score=0.0, mean_length=30.0, ended_share=1.0, unparsable_share=0.0)

    values = {
        "seed": 0, "vocab_size": 512, "seconds": {"all": 100.0}, "base": measure(-3.0), "sft": measure(0.0),
        "ppo": measure(1.5), "kl": 10.0, "accuracies": Accuracies(0.8, 0.6, 0.7, 200, 90), "bag_of_words": 0.7,
        "label_error": 0.2, "random_gold": -3.0, "best_gold": 3.0, "rescored_delta": 0.0,
        "ideas": [IdeaExample("p", "h", "f", 1.0, 0.0)] * 18 + [IdeaExample("p", "h", "f", 0.0, 1.0)] * 2,
        "samples": (), "audit": PolicyAudit(SUBJECT, SUBJECT, ()),
    }  # fmt: skip
    return Results(**(values | changes))


def test_derived_numbers():
    found = results()
    assert (found.sft_gain, found.ppo_gain, found.share_of_possible, found.honest_wins) == (3.0, 1.5, 0.5, 18)
    assert all(check.holds for check in checks(found))


@pytest.mark.parametrize(
    ("changes", "broken"),
    [
        ({"kl": 20.1}, "mean sequence KL, nats"),
        ({"vocab_size": 299}, "pieces in the vocabulary"),
        ({"accuracies": Accuracies(0.74, 0.5, 0.7, 200, 90)}, "reward model accuracy against gold"),
        ({"accuracies": Accuracies(0.80, 0.71, 0.7, 200, 90)}, "… above length-only"),
        ({"rescored_delta": 2e-5}, "scores asked for again, largest difference in SD"),
        ({"seconds": {"a": 200.0, "b": 101.0}}, "compute, seconds"),
    ],
)
def test_a_missed_bar_is_named(changes, broken):
    assert [check.name for check in checks(results(**changes)) if not check.holds] == [broken]


def test_results_are_written_with_their_bars(tmp_path):
    found = results(kl=20.1)
    write_results(tmp_path / "results.json", asdict(found), checks(found))
    written = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert (written["kl"], written["ppo"]["gold"]) == (20.1, 1.5)
    assert [bar["name"] for bar in written["checks"] if not bar["holds"]] == ["mean sequence KL, nats"]
