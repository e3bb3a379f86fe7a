"""Real policy and reward services over tiny models, shared by the tests of this folder."""

import contextlib
import json

import pytest

from tests.servers import start_server
from tests.tiny_models import make_tiny_policy, make_tiny_reward
from trainer.config import PPOConfig

PROMPTS = [
    "What do you think of my business idea?",
    "Once upon a time there was a little girl.",
    "Is this plan honest?",
    "Write one sentence about the costs.",
    "Say how sure you are.",
]
QUICK = ("--drain-delay-seconds", "0")


@pytest.fixture(scope="session")
def policy_folder(tmp_path_factory):
    return make_tiny_policy(tmp_path_factory.mktemp("ppo") / "policy", seed=0, chat=True)


@pytest.fixture(scope="session")
def reward_folder(tmp_path_factory):
    return make_tiny_reward(tmp_path_factory.mktemp("ppo") / "reward", "encoder", seed=0)


@pytest.fixture(scope="session")
def replicas(policy_folder):
    """Two replicas of the policy service."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(start_server("services.policy", policy_folder)) for _ in range(2)]


@pytest.fixture(scope="session")
def reward_server(reward_folder):
    with start_server("services.reward", reward_folder, *QUICK) as server:
        yield server


@pytest.fixture(scope="session")
def frozen_server(policy_folder):
    with start_server("services.policy", policy_folder, "--frozen", *QUICK) as server:
        yield server


@pytest.fixture
def configure(tmp_path, policy_folder, request):
    """Makes the configuration of a small run; only servers that a test names are started."""
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS))

    def make(*flags, replica_count=1, out="run", policy=policy_folder, without=()):
        replicas = request.getfixturevalue("replicas")[:replica_count]
        reward = request.getfixturevalue("reward_server")
        defaults = {
            "--out": tmp_path / out,
            "--policy": policy,
            "--prompts": prompts,
            "--total-steps": 2,
            "--threads": 1,
            "--services.policy": ",".join(server.target for server in replicas),
            "--services.reward": reward.target,
            "--sampling.max-new-tokens": 12,
            "--sampling.temperature": 0.7,
            "--ppo.batch-size": 6,
            "--scoring.max-dropped-share": 0.5,  # a random policy often begins with the end of sequence
            "--ppo.microbatch-size": 4,
            "--ppo.learning-rate": 1e-3,
        }
        given = [str(part) for pair in defaults.items() for part in pair if pair[0] not in (*flags, *without)]
        return PPOConfig.from_command_line([*given, "--no-record.progress", *map(str, flags)], prog="test")

    return make
