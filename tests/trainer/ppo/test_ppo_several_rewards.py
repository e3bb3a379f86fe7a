"""Runs against two real reward services, one of which cannot score everything, beside local rewards."""

import statistics
from collections import Counter

import pytest
import yaml

from palate.client import Failed, RewardClient
from palate.rollout_files import read_rollouts
from tests.servers import start_server
from tests.tiny_models import make_tiny_reward
from trainer.metrics import read_metrics
from trainer.ppo.errors import CheckpointRefused, RewardModelChanged
from trainer.ppo.run import run_ppo

QUICK = ("--drain-delay-seconds", "0")
FUNCTION = '''
def spaces(prompts, completions):
    """A user's own reward."""
    return [float(text.count(" ")) for text in completions]
'''


@pytest.fixture(scope="module")
def narrow_server(tmp_path_factory):
    """Another model, which fails whatever is longer than a few words."""
    folder = make_tiny_reward(tmp_path_factory.mktemp("narrow") / "reward", "encoder", seed=5, max_tokens=22)
    with start_server("services.reward", folder, *QUICK) as server:
        yield server


@pytest.fixture
def several(tmp_path, configure, reward_server, narrow_server, monkeypatch):
    """Makes the configuration of a run with four rewards."""
    (tmp_path / "my_rewards.py").write_text(FUNCTION)
    monkeypatch.syspath_prepend(tmp_path)
    rewards = [
        {"name": "wide", "target": reward_server.target, "weight": 2.0, "transform": "standardize"},
        {"name": "narrow", "target": narrow_server.target, "transform": "sigmoid"},
        {"name": "spaces", "function": "my_rewards:spaces", "weight": -0.1},
        {"name": "long", "max_tokens": 8, "weight": 0.25},
    ]

    def make(*flags, **changes):
        changed = [{**reward, **changes.get(reward["name"], {})} for reward in rewards]
        file = tmp_path / "run.yaml"
        file.write_text(yaml.safe_dump({"rewards": changed}))
        flags = ("--config", file, "--scoring.standardize-samples", 8, "--scoring.max-dropped-share", 0.9, *flags)
        # --services.reward is another way to name rewards, so it is left out
        return configure(*flags, without=("--services.reward",))

    return make


def test_rewards_are_combined_logged_stored_and_pinned(several, reward_server, narrow_server, tmp_path):
    config = several()
    result = run_ppo(config)
    rows, metrics = list(read_rollouts(config.out)), read_metrics(config.out)

    # what each service says of the stored texts is what was stored, and what it cannot score was not learnt from
    for name, server in (("wide", reward_server), ("narrow", narrow_server)):
        with RewardClient(server.target, revision=result.reward_revisions[name]) as client:
            again = client.score([r["prompt"] for r in rows], [r["completion"] for r in rows]).scores()
        stored = [component for row in rows for component in row["components"] if component["name"] == name]
        assert [each["score"] for each in stored] == pytest.approx(again, abs=1e-5)
        assert {each["revision"] for each in stored} == {result.reward_revisions[name]}

    for row in rows:
        raw = {component["name"]: component["score"] for component in row["components"]}
        assert list(raw) == ["wide", "narrow", "spaces", "long"]
        assert raw["spaces"] == row["completion"].count(" ")
        assert raw["long"] == -max(0, len(row["completion_ids"]) - 8)
    by_step = {step: [row for row in rows if row["step"] == step] for step in (1, 2)}
    for row, step in zip(metrics, (1, 2), strict=True):
        scores = [component["score"] for each in by_step[step] for component in each["components"]][1::4]
        assert row["objective/score_narrow"] == pytest.approx(statistics.mean(scores))
        assert row["objective/scores"] == pytest.approx(
            statistics.mean(each["score"] for each in by_step[step]), abs=1e-6
        )
    dropped = Counter({name: sum(row[name] for row in metrics) for name in metrics[0] if "dropped_" in name})
    assert dropped["rollout/dropped_too_long"] > 0

    # a resumed run has each scale and goes on; another function or weight does not pass unseen
    with pytest.raises(CheckpointRefused, match=r"rewards\.2\.weight \(was -0\.1, is 0\.5\)"):
        run_ppo(several("--resume", "--total-steps", 3, spaces={"weight": 0.5}))
    with pytest.raises(RewardModelChanged, match=r"reward wide is pinned to revision .* --accept-new-reward"):
        run_ppo(several("--resume", "--total-steps", 3, wide={"target": narrow_server.target}))
    (tmp_path / "my_rewards.py").write_text(FUNCTION + "\n# changed\n")
    with pytest.raises(RewardModelChanged, match="reward spaces is pinned to revision"):
        run_ppo(several("--resume", "--total-steps", 3))
    assert run_ppo(several("--resume", "--total-steps", 3, "--accept-new-reward")).steps == 3
    assert [row["step"] for row in read_rollouts(config.out)] == [1] * 6 + [2] * 6 + [3] * 6


def test_what_the_narrow_service_fails_is_really_a_failure(narrow_server):
    with RewardClient(narrow_server.target) as client:
        short, long = client.score(["Is it?", "Is it?"], ["yes", "yes " * 40]).results
    assert not isinstance(short, Failed)
    assert isinstance(long, Failed)
