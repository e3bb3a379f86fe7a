"""A run against an ensemble that `palate train reward --members` made: one service, members made one in three ways."""

import pytest
import yaml

from palate.client import Aggregate, MeanMinusVariance, RewardClient
from palate.rollout_files import read_rollouts
from tests.servers import start_server
from tests.trainer.reward_model.test_rm_train import config as reward_config
from tests.trainer.reward_model.test_rm_train import toy_rows
from trainer.metrics import read_metrics
from trainer.ppo.run import run_ppo
from trainer.reward_model.train import run_reward

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
