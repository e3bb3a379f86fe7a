"""The curves: gold and proxy over √KL for every objective, with fits, and how far the ensemble disagrees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.overoptimisation.table import Row, by_objective, fall, pooled, smoothed
from palate.report.figures import Axis, Figure, scatter
from palate.report.page import Section, Table, write_page
from trainer.overoptimisation.told import gains_figure, interval_told

_X = "√KL, √nats"


def write_curves(file: Path, part: str, rows: Sequence[Row]) -> Path:
    """Writes one HTML page."""
    sections = [
        Section("Gold", _GOLD, [_table(part, rows)], [_gold(part, rows)]),
        Section("Proxy", "Each objective's own gain, in its own unit.", figures=list(_each(rows, "proxy"))),
        Section("Disagreement", "Mean standard deviation over members.", figures=list(_each(rows, "disagreement"))),
    ]
    title = "best of n" if part == "bon" else "PPO"
    lead = "The simulated world, a quarter of the labels wrong; gold is never learnt from."
    write_page(file, f"Over-optimisation: {title}", lead, sections)
    return file


_GOLD = (
    "Gain in gold over the start. Points are of single seeds, lines the form of Gao et al. 2022 fitted to all seeds of "
    "an objective; its intervals are of a bootstrap over seeds."
)


def _gold(part: str, rows: Sequence[Row]) -> Figure:
    points, fits = {}, {}
    for name, own in by_objective(rows).items():
        fits[name] = pooled(part, list(own.values()))
        points[name] = (
            np.concatenate([row.d for row in own.values()]),
            np.concatenate([smoothed(row) for row in own.values()]),
        )
    return gains_figure("gain in gold over √KL", points, fits)


def _each(rows: Sequence[Row], what: str) -> Iterator[Figure]:
    for name, own in by_objective(rows).items():
        found = [(row.d, getattr(row, what)) for row in own.values() if getattr(row, what) is not None]
        if found:
            xs, ys = ([value for pair in found for value in pair[side]] for side in (0, 1))
            yield scatter(f"{what}: {name}", Axis(_X, what), {name: (xs, ys)})


def _table(part: str, rows: Sequence[Row]) -> Table:
    lines: list[tuple[str, ...]] = []
    for name, own in by_objective(rows).items():
        fitted = pooled(part, list(own.values()))
        for seed, row in own.items():
            lines.append((name, str(seed), f"{smoothed(row)[-1]:.2f}", f"{fall(row):.2f}", "", "", ""))
        alpha, beta, turning_point = map(interval_told, (fitted.alpha, fitted.beta, fitted.turning_point))
        lines.append((name, "all", "", "", alpha, beta, turning_point))
    return Table("gold", ("objective", "seed", "at the end", "fall from the best", "α", "β", "turns at √KL"), lines)
