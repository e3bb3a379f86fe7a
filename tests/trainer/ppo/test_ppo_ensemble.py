"""Runs against an ensemble that `palate train reward --members` made: its aggregates, gold beside it, brakes."""

import json
import statistics

import pytest
import torch
import yaml
from safetensors.torch import load_file

from palate.client import Aggregate, MeanMinusVariance, RewardClient
from palate.rollout_files import read_rollouts
from tests.servers import start_server
from tests.trainer.reward_model.test_rm_train import config as reward_config
from tests.trainer.reward_model.test_rm_train import toy_rows
from trainer.metrics import read_metrics
from trainer.ppo.errors import BrakeUnusable, TrainingError
from trainer.ppo.run import run_ppo
from trainer.reward_model.train import run_reward

GOLD = '''
def gold(prompts, completions):
    """Likes the letter e; has no opinion on some."""
    return [None if "a" in text else float(text.count("e")) for text in completions]


def positional(texts, answers):
    return [1.0 for _ in answers]
'''
WAYS = {"mean": Aggregate.MEAN, "least": Aggregate.MIN, "careful": MeanMinusVariance(2.0)}


@pytest.fixture(scope="module")
def ensemble_server(tmp_path_factory):
    settings = reward_config(tmp_path_factory.mktemp("members"), rows=toy_rows(80), members=3, max_steps=2)
    with start_server(
        "services.reward", run_reward(settings).model_folder, "--name", "judge", "--drain-delay-seconds", "0"
    ) as server:
        yield server


def test_an_ensemble_is_trained_against_by_mean_minimum_and_mean_minus_variance(configure, ensemble_server, tmp_path):
    target = ensemble_server.target
    rewards = [
        {"name": "mean", "target": target, "aggregate": "mean"},
        {"name": "least", "target": target, "aggregate": "min"},
        {"name": "careful", "target": target, "aggregate": "mean-minus-variance", "variance_weight": 2.0},
    ]
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({"rewards": rewards}))
    config = configure("--config", file, "--total-steps", 1, without=("--services.reward",))
    run_ppo(config)
    rows = list(read_rollouts(config.out))
    texts = [row["prompt"] for row in rows], [row["completion"] for row in rows]
    with RewardClient(target) as client:
        expected = {name: client.score(*texts, aggregate=way).scores() for name, way in WAYS.items()}
    for place, name in enumerate(WAYS):
        assert [row["components"][place]["name"] for row in rows] == [name] * len(rows)
        assert [row["components"][place]["score"] for row in rows] == pytest.approx(expected[name], abs=1e-5)
    assert all(low < mean for low, mean in zip(expected["least"], expected["mean"], strict=True))
    assert read_metrics(config.out)[0]["objective/score_least"] == pytest.approx(
        sum(expected["least"]) / len(rows), abs=1e-5
    )


@pytest.fixture
def watched(configure, ensemble_server, tmp_path, monkeypatch):
    """Makes the configuration of a run against the ensemble."""
    (tmp_path / "my_gold.py").write_text(GOLD)
    monkeypatch.syspath_prepend(tmp_path)

    def make(*flags):
        # Learning rates that depend on the number of steps would differ between a run that is ended and one that ends.
        return configure("--services.reward", ensemble_server.target, "--no-ppo.anneal", *flags)

    return make


@pytest.mark.parametrize(
    ("name", "problem"),
    [("absent", "there is no such function"), ("positional", "called as .*completions=.*, and .* argument")],
)
def test_a_gold_function_that_cannot_be_called_leaves_nothing_behind(name, problem, watched):
    config = watched("--total-steps", 1, "--watch.gold-function", f"my_gold:{name}")
    with pytest.raises(TrainingError, match=problem):
        run_ppo(config)
    assert not config.out.exists()


def test_a_brake_ends_a_run_and_says_so(watched):
    bounds = ("--watch.max-disagreement", 1e-6, "--watch.window", 2)
    config = watched("--total-steps", 4, "--watch.gold-function", "my_gold:gold", *bounds)
    result = run_ppo(config)
    rows, metrics = list(read_rollouts(config.out)), read_metrics(config.out)
    assert (result.end.reason, result.end.step, result.steps, result.version.step) == ("DISAGREEMENT", 2, 2, 2)
    assert "watch/disagreement over 2 steps is" in result.end.told
    assert json.loads((config.out / "end.json").read_text())["reason"] == "DISAGREEMENT"
    assert "ended after step 2 (DISAGREEMENT)" in (config.out / "report.html").read_text()
    for row in metrics:
        own = [one for one in rows if one["step"] == row["step"]]
        known = [one["completion"].count("e") for one in own if "a" not in one["completion"]]
        assert row["watch/gold_missing"] == len(own) - len(known)
        assert row.get("watch/gold") == (pytest.approx(statistics.mean(known)) if known else None)
        spreads = [one["components"][0]["std"] for one in own]
        assert row["watch/disagreement"] == pytest.approx(statistics.mean(spreads))

    # What was looked at was not learnt from: without it the weights are the same.
    blind = run_ppo(watched("--total-steps", 2, "--out", config.out.with_name("blind")))
    assert blind.end.reason == "STEPS"
    one, other = (load_file(each.model_folder / "model.safetensors") for each in (result, blind))
    assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in one)

    # The brake off, the run goes on to its end.
    again = run_ppo(watched("--total-steps", 3, "--resume"))
    assert (again.end.reason, again.steps) == ("STEPS", 3)


def test_disagreement_of_a_single_model_is_no_brake(configure):
    config = configure("--watch.max-disagreement", 1.0)
    with pytest.raises(BrakeUnusable, match="needs a reward that is an ensemble"):
        run_ppo(config)
    assert not config.out.exists()
