"""How far apart scores may be that ought to be the same: one table for export, start-up check and `palate verify`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What is allowed to an engine that computes in one number format.

    Attributes:
        batch: Between a text alone and in any company, in standard deviations of the texts' scores.
        shift: Between this engine and a float32 engine on the same folder, in the same unit.
        spearman: Least rank correlation with that float32 engine.
    """

    batch: float
    shift: float
    spearman: float


TOLERANCES: Mapping[str, Tolerance] = {
    "float32": Tolerance(batch=1e-4, shift=1e-4, spearman=0.999),  # rounding alone
    "bfloat16": Tolerance(batch=0.1, shift=0.25, spearman=0.99),  # eight binary digits; kernels are chosen by shape
    "int8": Tolerance(batch=1e-4, shift=0.25, spearman=0.99),  # scales are a row's own, so company changes nothing
}
"""By number format, as replies name it."""


def tolerance_of(dtype: str) -> Tolerance:
    """The entry for a number format; for an ensemble's, e.g. "float32+int8", the widest of its members'."""
    members = [TOLERANCES[each] for each in dtype.split("+")]
    return Tolerance(
        max(each.batch for each in members), max(each.shift for each in members), min(each.spearman for each in members)
    )


def spread(scores: Iterable[float]) -> float:
    """Standard deviation of scores of different texts, the unit of all tolerances.

    Where all texts score alike, rounding itself is the scale: no engine can do better.
    """
    found = [float(score) for score in scores]
    mean = math.fsum(found) / len(found)
    deviation = math.sqrt(math.fsum((score - mean) ** 2 for score in found) / len(found))
    return max(deviation, 1e-3 * max(map(abs, found)), 1e-6)
