"""The estimators that are measured: their configurations hold, and differ in what they should."""

import pytest

from benchmarks.estimators import ESTIMATORS, GROUP_SIZE, Row, at_kl, estimator_config, holds, overlap_differences
from trainer.config import ServicesGroup
from trainer.demo.config import DemoConfig
from trainer.demo.results import PolicyMeasure


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_estimator_has_a_configuration_and_a_folder_of_its_own(tmp_path, name):
    first = estimator_config(DemoConfig(out=tmp_path), ServicesGroup(), name, 10, 6.0)
    first.out.mkdir()
    second = estimator_config(DemoConfig(out=tmp_path), ServicesGroup(), name, 10, 6.0)
    assert (first.out.name, second.out.name) == (f"{name}-0", f"{name}-1")
    assert (first.total_steps, first.ppo.kl_target) == (10, 6.0)
    assert first.ppo.kl_horizon == 10 * first.ppo.batch_size / 20
    assert first.ppo.has_critic == name.startswith("gae") == first.ppo.critic_init.startswith("reward:")
    assert first.sampling.completions_per_prompt == (GROUP_SIZE if first.ppo.estimator in ("grpo", "rloo") else 1)
    assert first.sampling.temperature == 0.7  # the demo's
    assert first.overlap.max_staleness == (1 if name == "gae_overlapped" else 0)


MEASURE = PolicyMeasure(0.0, 1.0, 0.0, 10.0, 1.0, 0.0)


def row(seed: int, estimator: str, gain: float) -> Row:
    return Row(seed, estimator, gain, kl=4.0, kl_coef=0.1, before=MEASURE, after=MEASURE, seconds=1.0)


def test_overlap_is_compared_seed_by_seed():
    rows = [row(0, "gae", 1.5), row(1, "gae", 1.1), row(1, "gae_overlapped", 1.2), row(2, "gae_overlapped", 9.0)]
    assert overlap_differences(rows) == [pytest.approx(0.1)]


@pytest.mark.parametrize(
    ("gains", "bar"),
    [((1.45, 1.5, 1.55), True), ((1.9, 1.95, 2.0), False), ((1.1, 1.5, 1.9), False)],
    ids=["little", "always more", "too uncertain"],
)
def test_overlap_must_change_little_with_the_whole_interval(gains, bar):
    rows = [row(seed, "gae", 1.5) for seed in range(3)]
    assert holds([*rows, *(row(seed, "gae_overlapped", gain) for seed, gain in enumerate(gains))]) is bar


def test_an_estimator_must_gain_in_the_mean_over_seeds():
    assert holds([row(0, "gae", 0.8), row(1, "gae", 1.3)])
    assert not holds([row(0, "gae", 0.8), row(1, "gae", 1.1)])


def test_gold_rises_with_the_root_of_kl():
    assert at_kl(row(0, "gae", 1.2), 4.0) == 1.2
    assert at_kl(row(0, "gae", 1.2), 9.0) == pytest.approx(1.8)
