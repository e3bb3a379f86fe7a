"""The estimators that are measured: their configurations hold, and differ in what they should."""

import pytest

from benchmarks.estimators import ESTIMATORS, GROUP_SIZE, estimator_config
from trainer.config import ServicesGroup
from trainer.demo.config import DemoConfig


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_estimator_has_a_configuration_and_a_folder_of_its_own(tmp_path, name):
    first = estimator_config(DemoConfig(out=tmp_path), ServicesGroup(), name, 10, 6.0)
    first.out.mkdir()
    second = estimator_config(DemoConfig(out=tmp_path), ServicesGroup(), name, 10, 6.0)
    assert (first.out.name, second.out.name) == (f"{name}-0", f"{name}-1")
    assert (first.total_steps, first.ppo.kl_target) == (10, 6.0)
    assert first.ppo.kl_horizon == 10 * first.ppo.batch_size / 20
    assert first.ppo.has_critic == (name == "gae") == first.ppo.critic_init.startswith("reward:")
    assert first.sampling.completions_per_prompt == (GROUP_SIZE if first.ppo.estimator in ("grpo", "rloo") else 1)
    assert first.sampling.temperature == 0.7  # the demo's
