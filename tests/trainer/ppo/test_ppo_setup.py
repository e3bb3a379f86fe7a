"""From configuration to stages: who learns how fast, what is drawn from, which estimator."""

from contextlib import ExitStack

import pytest
import torch

from palate.client.types import SamplingParams
from tests.tiny_models import make_tiny_policy
from trainer.config import PPOConfig, SamplingGroup
from trainer.ppo import setup
from trainer.ppo.advantages import GAE, GRPO, RLOO, ReinforcePP
from trainer.ppo.build import load_policy
from trainer.ppo.errors import NoDevice
from trainer.ppo.hyperparameters import PPOGroup
from trainer.ppo.team import local_device


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_policy(tmp_path_factory.mktemp("policy"), seed=0)


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def config(folder, **ppo):
    sampling = {"temperature": 0.7, "completions_per_prompt": 4}
    return PPOConfig(out="o", policy=folder, prompts="q", sampling=sampling, ppo=PPOGroup(**ppo))


@pytest.mark.parametrize(
    ("ppo", "rates"),
    [
        ({"learning_rate": 1e-4}, [1e-4, 1e-4]),
        ({"learning_rate": 1e-4, "critic_learning_rate": 9e-4}, [1e-4, 9e-4]),
        ({"learning_rate": 1e-4, "estimator": "rloo"}, [1e-4]),
    ],
)
def test_networks_learn_at_their_own_rates(folder, ppo, rates):
    with ExitStack() as stack:
        updater, _ = setup.make_updater(config(folder, **ppo), load_policy(folder)[1], stack)
    assert [group["lr"] for group in updater.optimizer.param_groups] == rates
    assert (updater.model.critic is not None) == (len(rates) == 2)
    learnt = sum(p.numel() for group in updater.optimizer.param_groups for p in group["params"])
    assert learnt == sum(p.numel() for p in updater.model.parameters())


@pytest.mark.parametrize(
    ("ppo", "expected", "whitening"),
    [
        ({"gamma": 0.9, "bootstrap_truncated": True}, GAE(0.9, 0.95, True), "batch"),
        ({"estimator": "grpo"}, GRPO(4, True, True), "none"),
        ({"estimator": "grpo", "grpo_by_std": False, "whiten_unbiased": False}, GRPO(4, False, False), "none"),
        ({"estimator": "rloo", "whiten_advantages": "minibatch"}, RLOO(4), "minibatch"),
        ({"estimator": "reinforce_pp", "gamma": 0.5}, ReinforcePP(0.5), "batch"),
    ],
)
def test_names_make_estimators(ppo, expected, whitening):
    group = PPOGroup(**ppo)
    assert setup.make_estimator(group, 4) == expected
    assert group.whitening == whitening


def test_nothing_but_the_temperature_changes_what_is_drawn_from(folder):
    """Top-k, top-p or a least length would make ratios, and KLs below 0, of probabilities nobody drew with."""
    settings = setup._rollout_settings(config(folder), shard_prompts=8)
    assert settings.sampling == SamplingParams(temperature=0.7, max_new_tokens=48)
    assert (settings.sampling.top_p, settings.sampling.top_k) == (1.0, 0)


def test_completions_can_be_drawn_on_behind_their_end(folder):
    longer = config(folder).model_copy(update={"sampling": SamplingGroup(ignore_eos=True)})
    assert setup._rollout_settings(longer, shard_prompts=8).sampling.ignore_eos


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said_to_be_so():
    with pytest.raises(NoDevice, match=r"--device cuda, but PyTorch sees no GPU here; use --device cpu"):
        local_device("cuda")
