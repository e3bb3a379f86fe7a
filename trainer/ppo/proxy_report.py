"""The part of a run's report about over-optimisation: proxy and gold over √KL, and what such signals can say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from palate.bulk.rows import FileProblem
from palate.report.page import Section
from palate.rollout_files import read_rollouts
from trainer.overoptimisation.gao import FitWithIntervals, Unit, fit_with_intervals
from trainer.overoptimisation.length_share import LengthShare, Scored, length_share
from trainer.overoptimisation.told import NO_REWARD_MODEL_CAN, SHARED_MISTAKES, fits_table, gains_figure, length_told
from trainer.ppo.watch import GOLD, KL, read_end

Rows = Sequence[Mapping[str, float]]

PROXY = "objective/scores"
_NAMES = {PROXY: "score (the proxy)", GOLD: "gold (never learnt from)"}
_EDGE = 0.2
"""Share of the steps that count as the beginning, and as the end, of a run."""


def proxy_section(run: Path, rows: Rows) -> Section:
    """Gains over √KL with fits, for the score and, where it was asked for, for gold."""
    found = {name: _points(rows, name) for name in (PROXY, GOLD)}
    found = {name: (d, gain) for name, (d, gain) in found.items() if len(np.unique(d[d > 0])) > 1}
    found = {_NAMES[name]: points for name, points in found.items()}
    fits = {name: _fitted(*points) for name, points in found.items()}
    no_gold = "" if _NAMES[GOLD] in fits else _NO_GOLD
    text = "\n\n".join(filter(None, (_told_end(run), _WHAT, no_gold, *_lengths(run), _LIMITS)))
    if not fits:
        return Section("Over-optimisation", text)
    figure = gains_figure("gain over the first step, against √KL", found, fits)
    return Section("Over-optimisation", text, [fits_table(fits, "steps")], [figure])


def _points(rows: Rows, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(K,) √KL and (K,) gains over the first step that has the number."""
    having = [row for row in rows if name in row]
    d = np.array([math.sqrt(max(row[KL], 0.0)) for row in having])
    values = np.array([row[name] for row in having])
    return d, values - values[:1]


def _fitted(d: np.ndarray, gain: np.ndarray) -> FitWithIntervals:
    return fit_with_intervals("rl", [Unit(d[[step]], gain[[step]]) for step in range(len(d))])


def _told_end(run: Path) -> str:
    end = read_end(run)
    return f"The run ended after step {end.step} ({end.reason}): {end.told}." if end else ""


def _lengths(run: Path) -> list[str]:
    share = length_of_gain(run)
    if share is None or share.share is None:
        return []
    return [f"From the first to the last fifth of the stored steps the score {length_told(share)}"]


def length_of_gain(run: Path) -> LengthShare | None:
    """How much of the score's gain length explains, from stored rollouts; None where too few are stored."""
    try:
        rows = [(r["step"], len(r["completion_ids"]), r["score"]) for r in read_rollouts(run, _COLUMNS)]
    except FileProblem:
        return None
    steps, lengths, scores = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    edge = (steps.max() - steps.min()) * _EDGE
    sides = steps <= steps.min() + edge, steps >= steps.max() - edge
    if steps.min() == steps.max():
        return None
    before, after = (Scored(lengths[side], scores[side]) for side in sides)
    return length_share(before, after)


_COLUMNS = ("step", "completion_ids", "score")

_WHAT = (
    "Gains over the first step against d = √KL, with the form that Gao et al. 2022 found for reinforcement learning. "
    "Where the score goes on rising and gold has turned, what is learnt is the reward model's mistakes. Points are "
    "batches: their noise is in the intervals, that of another seed is not."
)
_NO_GOLD = (
    "Nothing judged this run beside its rewards (--watch.gold, --watch.gold-function), so the score is all that is "
    "known of it, and a score cannot say that it is wrong."
)
_LIMITS = (
    "What these signals can warn of: a policy that has gone far (KL), one that says what an ensemble's members have "
    f"not learnt alike (disagreement), one that has found length. What they cannot: {SHARED_MISTAKES}; and a turn "
    "before it happened, since each of them is seen when the policy is already there. They audit more than they "
    f"foretell.\n\n{NO_REWARD_MODEL_CAN}"
)
