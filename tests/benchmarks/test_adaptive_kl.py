"""What the benchmark of the KL controller runs, and how it judges."""

from argparse import Namespace
from pathlib import Path

import pytest

from benchmarks import adaptive_kl
from benchmarks.adaptive_kl import MODES, STARTS, Row, holds
from trainer.config import ServicesGroup


def row(mode, start, kl, seed=0):
    return Row(seed, mode, start, kl, kls=[], kl_coefs=[], score=0.0)


def rows(adaptive, fixed):
    return [row(mode, start, kl) for mode, kl in (("adaptive", adaptive), ("fixed", fixed)) for start in STARTS]


def test_adaptive_runs_must_end_near_the_target_and_fixed_ones_must_not():
    assert holds(rows(6.0, 12.0))
    assert holds(rows(6.89, 5.09))
    assert not holds(rows(6.91, 12.0))
    assert not holds(rows(6.0, 6.8))
    assert holds([*rows(5.5, 12.0), *(row("adaptive", start, 6.5, seed=1) for start in STARTS)])


def test_what_was_not_run_holds_nothing():
    assert not holds(rows(6.0, 12.0)[:-1])
    assert not holds([])


@pytest.mark.parametrize("mode", MODES)
def test_runs_differ_from_the_stories_in_their_coefficient_alone(tmp_path, mode):
    arguments = Namespace(
        data=Path("data"), stories=Path("stories"), work=tmp_path, steps=40, batch_size=32, kl_coef=0.08
    )
    world = adaptive_kl._World(arguments, adaptive_kl._stories(), ServicesGroup())
    config = adaptive_kl._config(world, 3, mode, 4.0)
    assert (config.seed, config.total_steps, config.ppo.batch_size) == (3, 40, 32)
    assert config.ppo.kl_coef == 0.32
    assert (config.ppo.kl_target is None) == (mode == "fixed")
    assert config.ppo.kl_horizon == (10_000 if mode == "fixed" else 32)
    assert config.ppo.kl_gain == (3 if mode == "adaptive" else 0)
    assert config.scoring.variety_bonus == 1.2  # the stories'
