"""Fits in tables and figures, and what such curves can warn of: the same words in every report that shows them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from palate.report.figures import Axis, Figure, scatter
from palate.report.page import Table
from trainer.overoptimisation.gao import FitWithIntervals, Form, Interval
from trainer.overoptimisation.length_share import LengthShare

Array = NDArray[np.float64]

_CURVE_POINTS = 120
_FORMS: Mapping[Form, str] = {"best_of_n": "R(d) = d (α − β d)", "rl": "R(d) = d (α − β ln d)"}

FITS_HEADER = ("what", "α", "β", "turns at √KL", "draws in which it turns")


def fits_table(fits: Mapping[str, FitWithIntervals], units: str) -> Table:
    """A line for each fit; `units` is what the bootstrap draws."""
    rows = [
        (name, *map(interval_told, (found.alpha, found.beta, found.turning_point)), f"{100 * found.turns:.0f} %")
        for name, found in fits.items()
    ]
    form = " and ".join(dict.fromkeys(_FORMS[found.fit.form] for found in fits.values()))
    return Table(f"{form}, 95 % intervals of a bootstrap over {units}", FITS_HEADER, rows)


def gains_figure(
    caption: str, points: Mapping[str, tuple[Array, Array]], fits: Mapping[str, FitWithIntervals]
) -> Figure:
    """(K,) d and (K,) gains of each name as points, over the line that was fitted to it."""
    lines: dict[str, tuple[list[float], list[float]]] = {}
    for name, (d, _) in points.items():
        line = np.linspace(0.0, d.max(), _CURVE_POINTS).tolist()
        lines[f"{name.split(' ')[0]}, fitted"] = (line, [fits[name].fit.at(x) for x in line])
    seen = {name: (d.tolist(), gain.tolist()) for name, (d, gain) in points.items()}
    return scatter(caption, Axis("√KL, √nats", "gain"), lines | seen)


def interval_told(interval: Interval) -> str:
    """A value and its ends."""
    return f"{_number(interval.value)} [{_number(interval.low)}, {_number(interval.high)}]"


def length_told(share: LengthShare, gain: Interval | None = None) -> str:
    """What of a gain length explains, as the end of "the score ..."; nothing of one whose interval spans zero."""
    if gain is not None and gain.low <= 0 <= gain.high:
        ends = f"[{gain.low:.3g}, {gain.high:.3g}]"
        return f"gained {share.gain:.3g}, which may be nothing ({ends}); what length explains of it cannot be told."
    if share.share is None or share.within is None:
        return f"gained {share.gain:.3g}; how much of it length explains cannot be told."
    return (
        f"gained {share.gain:.3g}; at equal length it gained {share.within:.3g}, so length explains "
        f"{100 * share.share:.0f} % of it. (Of {100 * share.covered:.0f} % of these completions there are some of like "
        "length on both sides.)"
    )


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 1e4 else "never"


SHARED_MISTAKES = (
    "mistakes that all members share because the labels hold them, on which they agree; anything that gold, too, does "
    "not know"
)
NO_REWARD_MODEL_CAN = (
    "What no reward model can fix: labels of people who could not tell, wishes that contradict each other, and things "
    "that a completion does beyond its text. Better labels, people who know, and looking at samples can."
)
