"""PPO against one member and against the ensemble, with little to hold it back; gold is looked at and never learnt."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.overoptimisation.world import (
    JUDGES,
    VARIANCE_WEIGHT,
    Sizes,
    make_judges,
    serve_judges,
)
from palate.aggregate import AggregateName
from trainer.config import PPOConfig, RecordGroup, ScoringGroup, ServicesGroup
from trainer.demo import phases
from trainer.demo.config import DemoConfig
from trainer.demo.run import serve_policies
from trainer.metrics import read_metrics
from trainer.overoptimisation.gao import Unit, fit_with_intervals
from trainer.overoptimisation.objectives import SINGLE
from trainer.ppo.hyperparameters import PPOGroup
from trainer.ppo.run import run_ppo
from trainer.ppo.watch_config import WatchGroup

KL_COEF = 0.02
"""Small, as in Coste et al. 2023: enough to keep text text, too little to stop before the reward model is exploited."""


@dataclass(frozen=True, slots=True)
class PPORow:
    """One run.

    Attributes:
        seed: Of everything.
        objective: What was learnt from.
        d: √KL of every step's batch.
        gold: Its mean gold, less that of the first.
        proxy: Its mean score, likewise.
        disagreement: Its mean standard deviation over members; None for a single model.
        fit: Gao's form on `gold`, its intervals over steps.
    """

    seed: int
    objective: str
    d: tuple[float, ...]
    gold: tuple[float, ...]
    proxy: tuple[float, ...]
    disagreement: tuple[float, ...] | None
    fit: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Judged:
    """What a run learns from.

    Attributes:
        sizes: Of the ensemble, and of the run.
        objective: What is made of the members' scores.
        variance_weight: What "mean-var" takes off: so many times the members' variance.
        kl_coef: Weight of the KL penalty.
    """

    sizes: Sizes
    objective: str
    variance_weight: float = VARIANCE_WEIGHT
    kl_coef: float = KL_COEF

    @property
    def scoring(self) -> Mapping[str, Any]:
        """What this changes in the demo's scoring."""
        ways: Mapping[str, Mapping[str, Any]] = {
            SINGLE: {},
            "mean": {"aggregate": AggregateName.MEAN},
            "min": {"aggregate": AggregateName.MIN},
            "mean-var": {"aggregate": AggregateName.MEAN_MINUS_VARIANCE, "variance_weight": self.variance_weight},
        }
        return ways[self.objective]

    @property
    def name(self) -> str:
        """Of the run's folder: another KL penalty or another λ is another run."""
        weight = f"-{self.variance_weight:g}" if self.objective == "mean-var" else ""
        return f"ppo-{self.objective}{weight}-kl-{self.kl_coef:g}"


def ppo_row(demo: DemoConfig, judged: Judged, out: Path) -> PPORow:
    """Trains, or goes on with a run that was stopped, and reads what it wrote down."""
    judges = make_judges(demo, judged.sizes, out / "judges")
    paths = phases.Paths(demo.out)
    with ExitStack() as stack:
        policy, ref = serve_policies(paths, stack)
        reward = serve_judges(judges, out / "judges.log", stack)
        services = ServicesGroup(
            policy=[policy.target],
            ref=ref.target,
            reward=reward.target,
            reward_model=SINGLE if judged.objective == SINGLE else JUDGES,
        )
        config = ppo_config(demo, judged, services, out / judged.name, judges)
        run_ppo(config)
    return _read(demo.seed, judged.objective, config.out)


def ppo_config(demo: DemoConfig, judged: Judged, services: ServicesGroup, out: Path, judges: Path) -> PPOConfig:
    """The demo's phase 3 with another objective, less KL penalty, and gold beside it."""
    base = phases.ppo_config(demo, phases.Paths(demo.out), services)
    changed = {
        "out": out,
        "total_steps": judged.sizes.steps,
        "resume": True,
        "scoring": ScoringGroup(**{**dict(base.scoring), **judged.scoring}),
        "ppo": PPOGroup(
            **{**dict(base.ppo), "kl_coef": judged.kl_coef, "critic_init": f"reward:{judges / 'member-1' / 'model'}"}
        ),
        "record": RecordGroup(**{**dict(base.record), "checkpoint_every": 10}),
        "watch": WatchGroup(gold_function="trainer.simulation.gold_function:gold"),
    }
    return PPOConfig(**{**dict(base), **changed})


def _read(seed: int, objective: str, run: Path) -> PPORow:
    rows = read_metrics(run)
    d = np.array([math.sqrt(max(row["objective/kl"], 0.0)) for row in rows])
    gold, proxy = (np.array([row[name] for row in rows]) for name in ("watch/gold", "objective/scores"))
    gold, proxy = gold - gold[0], proxy - proxy[0]
    found = fit_with_intervals("rl", [Unit(d[[step]], gold[[step]]) for step in range(len(d))], seed)
    disagreement = tuple(row["watch/disagreement"] for row in rows) if objective != SINGLE else None
    return PPORow(
        seed, objective, tuple(d.tolist()), tuple(gold.tolist()), tuple(proxy.tolist()), disagreement, asdict(found)
    )
