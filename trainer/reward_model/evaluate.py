"""How good a reward model is on comparisons it has not seen, beside what length and words alone would give."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from trainer.data.comparisons import Comparison

_Z = 1.959963984540054
"""Two-sided 95 % of the normal distribution."""


@dataclass(frozen=True, slots=True)
class Share:
    """A share of comparisons with its 95 % Wilson interval."""

    value: float
    low: float
    high: float
    count: int


def wilson(successes: float, count: int) -> Share | None:
    """Share and Wilson score interval; None where nothing was counted.

    Source: Wilson 1927. `successes` may hold halves, for draws.
    """
    if count == 0:
        return None
    share, z2 = successes / count, _Z * _Z
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = _Z / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count * count))
    return Share(share, max(0.0, middle - half), min(1.0, middle + half), count)


def accuracy(rows: Sequence[Comparison], differences: Sequence[float]) -> Share | None:
    """How often score(a) − score(b) has the sign of the label; ties are left out, a difference of 0 counts half."""
    credits = [credit(difference, row) for row, difference in zip(rows, differences, strict=True) if row.label != "tie"]
    return wilson(sum(credits), len(credits))


def credit(difference: float, row: Comparison) -> float:
    """1 where the difference agrees with the label, 0 where it does not, a half where there is none."""
    return 0.5 if difference == 0 else float((difference > 0) == (row.label == "a"))


def length_differences(rows: Sequence[Comparison]) -> list[float]:
    """What a judge would say who only looks at the number of characters."""
    return [float(len(row.a) - len(row.b)) for row in rows]


def shorter_won(rows: Sequence[Comparison]) -> list[int]:
    """Indices of the rows whose preferred completion is the shorter one."""
    return [
        index
        for index, (row, by_length) in enumerate(zip(rows, length_differences(rows), strict=True))
        if row.label != "tie" and credit(by_length, row) == 0.0
    ]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Shares of held-out comparisons judged as labelled; None where there are none of the kind.

    Attributes:
        reward_model: By the reward model.
        length_only: By which completion is longer.
        bag_of_words: By a logistic regression on word counts, trained on the same comparisons.
        shorter_won: By the reward model, where the shorter completion was preferred.
        threshold: Completions on the right side of one threshold, the middle between preferred and other ones: how well
            a single text can be judged. It means something where labels do not depend on what a text is compared with.
    """

    reward_model: Share | None
    length_only: Share | None
    bag_of_words: Share | None
    shorter_won: Share | None
    threshold: Share | None


def evaluate(
    rows: Sequence[Comparison], scores_a: Sequence[float], scores_b: Sequence[float], bag_of_words: Sequence[float]
) -> Evaluation:
    """Judges `rows` by raw scores of both sides, by length, and by the differences that a bag of words gives."""
    differences = [a - b for a, b in zip(scores_a, scores_b, strict=True)]
    short = shorter_won(rows)
    return Evaluation(
        reward_model=accuracy(rows, differences),
        length_only=accuracy(rows, length_differences(rows)),
        bag_of_words=accuracy(rows, bag_of_words),
        shorter_won=accuracy([rows[i] for i in short], [differences[i] for i in short]),
        threshold=threshold_accuracy(rows, scores_a, scores_b),
    )


def threshold_accuracy(
    rows: Sequence[Comparison], scores_a: Sequence[float], scores_b: Sequence[float]
) -> Share | None:
    """Share of completions on the right side of the middle between preferred and other ones.

    The middle is fitted on one half of the rows and used on the other, and the other way round.
    """
    sides = [
        (a, b) if row.label == "a" else (b, a)
        for row, a, b in zip(rows, scores_a, scores_b, strict=True)
        if row.label != "tie"
    ]
    halves = sides[::2], sides[1::2]
    if not all(halves):
        return None
    right = sum(_right_of(halves[1 - i], _middle(halves[i])) for i in (0, 1))
    return wilson(right, 2 * len(sides))


def _middle(sides: Sequence[tuple[float, float]]) -> float:
    return math.fsum(good + bad for good, bad in sides) / (2 * len(sides))


def _right_of(sides: Sequence[tuple[float, float]], middle: float) -> int:
    return sum((good > middle) + (bad < middle) for good, bad in sides)
