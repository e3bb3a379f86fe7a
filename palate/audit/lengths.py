"""The length-only baseline: how much of what a model prefers its length would explain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from palate.audit.items import Item, Measure
from palate.audit.statistics import Floats, Share, leaning

MATCHED = 0.1
"""Completions whose lengths differ by no more than this share of the longer one count as equally long."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """How far length explains which answer is preferred; shares are of right choices, None without any such pair.

    Attributes:
        length_only: What a model would reach that prefers the longer completion.
        matched: The model's, where both are about as long.
        shorter_is_better: The model's, where the better one is shorter.
    """

    length_only: Share | None
    matched: Share | None
    shorter_is_better: Share | None


def length_share(measure: Measure, items: Sequence[Item]) -> float | None:
    """The share of hits of a model that counts characters; None where it finds nothing but ties."""
    share = leaning(measure, _characters(items, measure), 1.0).share
    return None if share is None else share.value


def lengths(items: Sequence[Item], scores: Floats, sd: float) -> Lengths:
    """Of N pairs, the worse completion first, and their (N, 2) scores."""
    size = _characters(items, Measure.PAIR)
    worse, better = size[:, 0], size[:, 1]
    matched = np.abs(worse - better) <= MATCHED * np.maximum(worse, better)
    right = scores[:, ::-1]
    return Lengths(
        length_only=leaning(Measure.PAIR, size[:, ::-1], 1.0).share,
        matched=leaning(Measure.PAIR, right[matched], sd).share,
        shorter_is_better=leaning(Measure.PAIR, right[better < worse], sd).share,
    )


def _characters(items: Sequence[Item], measure: Measure) -> Floats:
    """(N, K) of the completions."""
    rows = [[len(text.completion) for text in item.texts] for item in items]
    return np.array(rows, dtype=np.float64).reshape(-1, measure.texts)
