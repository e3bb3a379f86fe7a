"""What curves say in numbers: where gold ends, how far it fell from its best, where the fitted form turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from rich.table import Table

from benchmarks.overoptimisation.best_of_n import BestOfN
from benchmarks.overoptimisation.ppo import PPORow
from benchmarks.overoptimisation.world import OBJECTIVES
from benchmarks.seeds import told
from palate.report.figures import running_mean
from trainer.overoptimisation.gao import FitWithIntervals, Form, Unit, fit_with_intervals
from trainer.overoptimisation.objectives import SINGLE
from trainer.overoptimisation.told import interval_told

Row: TypeAlias = BestOfN | PPORow

FORMS: Mapping[str, Form] = {"bon": "best_of_n", "ppo": "rl"}
_SMOOTH = 5
"""Steps of PPO whose mean is a point: single batches are noisy, and the best of noisy points is no peak."""


def smoothed(row: Row) -> list[float]:
    """Gold over best of n as it is, over PPO's steps as a running mean."""
    return list(row.gold) if isinstance(row, BestOfN) else running_mean(row.gold, _SMOOTH)


def fall(row: Row) -> float:
    """How far gold ends below its best: 0 where it never turned."""
    values = smoothed(row)
    return max(values) - values[-1]


def pooled(part: str, rows: Sequence[Row]) -> FitWithIntervals:
    """Gao's form on the rows of one objective, with intervals over seeds."""
    return fit_with_intervals(FORMS[part], [Unit(np.array(row.d), np.array(row.gold)) for row in rows])


def by_objective(rows: Sequence[Row]) -> dict[str, dict[int, Row]]:
    """Objective → seed → row, in the usual order."""
    found = {name: {row.seed: row for row in rows if row.objective == name} for name in OBJECTIVES}
    return {name: own for name, own in found.items() if own}


def table(part: str, rows: Sequence[Row]) -> Table:
    """A line for each objective: means with 90 % intervals over seeds, fits with 95 % ones.

    Ends and falls are compared with the single model's seed by seed.
    """
    title = "best of n" if part == "bon" else "PPO"
    header = (
        "objective",
        "seeds",
        "gold at the end",
        "fall from the best",
        "over single",
        "falls less by",
        "α",
        "β",
        "turns at √KL",
    )
    found = by_objective(rows)
    made = Table(*header, title=f"{title}: gain in gold")
    for name, own in found.items():
        fitted = pooled(part, list(own.values()))
        ends = {seed: smoothed(row)[-1] for seed, row in own.items()}
        single = found.get(SINGLE, {}) if name != SINGLE else {}
        over = [ends[seed] - smoothed(single[seed])[-1] for seed in ends if seed in single]
        less = [fall(single[seed]) - fall(own[seed]) for seed in own if seed in single]
        numbers = [told(list(ends.values())), told([fall(row) for row in own.values()])]
        numbers += [told(paired) if paired else "" for paired in (over, less)]
        intervals = (fitted.alpha, fitted.beta, fitted.turning_point)
        made.add_row(name, str(len(own)), *numbers, *map(interval_told, intervals))
    return made
