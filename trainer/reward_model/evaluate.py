"""How good a reward model is on comparisons it has not seen, beside what length and words alone would give."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from palate.wilson import wilson_interval
from trainer.data.comparisons import Comparison, linked_groups
from trainer.reward_model.bootstrap import interval_over_groups
from trainer.reward_model.halves import halved


@dataclass(frozen=True, slots=True)
class Share:
    """A share of comparisons with its 95 % Wilson interval.

    Attributes:
        value: The share.
        low: The interval's lower end, as if comparisons were independent.
        high: Its upper end.
        count: Comparisons.
        over_groups: Ends of a 95 % bootstrap interval over whole groups, whose comparisons may be alike; None where
            nobody asked, every comparison is a group of its own, groups are fewer than five, or all judged alike.
    """

    value: float
    low: float
    high: float
    count: int
    over_groups: tuple[float, float] | None = None


def wilson(successes: float, count: int) -> Share | None:
    """A share with its interval; None where nothing was counted. `successes` may hold halves, for draws."""
    if count == 0:
        return None
    return Share(successes / count, *wilson_interval(successes, count), count)


def accuracy(
    rows: Sequence[Comparison], differences: Sequence[float], groups: Sequence[str] | None = None
) -> Share | None:
    """How often score(a) − score(b) has the sign of the label; ties are left out, a difference of 0 counts half.

    Args:
        rows: What is judged.
        differences: Of each row.
        groups: What each row belongs to; None = as these rows alone are linked.
    """
    linked = linked_groups(rows) if groups is None else groups
    decided = [each for each in zip(rows, differences, linked, strict=True) if each[0].label != "tie"]
    return _share([credit(difference, row) for row, difference, _ in decided], [group for _, _, group in decided])


def _share(credits: Sequence[float], groups: Sequence[str]) -> Share | None:
    """The mean of what comparisons earned, each between 0 and 1, with both of its intervals."""
    share = wilson(math.fsum(credits), len(credits))
    if share is None or len(set(groups)) == len(groups):
        return share
    return replace(share, over_groups=interval_over_groups(credits, groups))


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
            The interval is over pairs, as a pair's two completions are no two trials.
        groups: Groups of the comparisons that are no ties; those that share a prompt are one.
        threshold_split: What the halves are of on which the threshold was fitted and used, as in `Halves`.
    """

    reward_model: Share | None
    length_only: Share | None
    bag_of_words: Share | None
    shorter_won: Share | None
    threshold: Share | None
    groups: int
    threshold_split: Literal["groups", "rows"] | None

    def shares(self) -> dict[str, Share | None]:
        """All of them, by who judges."""
        found = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: value for name, value in found.items() if name not in ("groups", "threshold_split")}

    @property
    def clustered(self) -> bool:
        """Whether several comparisons are of one group, so that intervals over comparisons may be too narrow."""
        return self.reward_model is not None and self.groups < self.reward_model.count


def evaluate(
    rows: Sequence[Comparison], scores_a: Sequence[float], scores_b: Sequence[float], bag_of_words: Sequence[float]
) -> Evaluation:
    """Judges `rows` by raw scores of both sides, by length, and by the differences that a bag of words gives."""
    differences = [a - b for a, b in zip(scores_a, scores_b, strict=True)]
    short, groups = shorter_won(rows), linked_groups(rows)
    decided = [group for row, group in zip(rows, groups, strict=True) if row.label != "tie"]
    halves = halved(decided)
    return Evaluation(
        reward_model=accuracy(rows, differences, groups),
        length_only=accuracy(rows, length_differences(rows), groups),
        bag_of_words=accuracy(rows, bag_of_words, groups),
        shorter_won=accuracy([rows[i] for i in short], [differences[i] for i in short], [groups[i] for i in short]),
        threshold=threshold_accuracy(rows, scores_a, scores_b, groups),
        groups=len(set(decided)),
        threshold_split=halves.by if halves else None,
    )


def threshold_accuracy(
    rows: Sequence[Comparison],
    scores_a: Sequence[float],
    scores_b: Sequence[float],
    groups: Sequence[str] | None = None,
) -> Share | None:
    """Share of completions on the right side of the middle between preferred and other ones; counted are pairs.

    The middle is fitted on one half of the groups (of the rows, where one group holds nearly all) and used on the
    other, and the other way round. `groups` are as those of `accuracy`.
    """
    linked = linked_groups(rows) if groups is None else groups
    decided = [each for each in zip(rows, scores_a, scores_b, linked, strict=True) if each[0].label != "tie"]
    sides, of = [(a, b) if row.label == "a" else (b, a) for row, a, b, _ in decided], [each[3] for each in decided]
    if (halves := halved(of)) is None:
        return None
    credits = [0.0] * len(sides)
    for fitted, used in ((halves.first, halves.second), (halves.second, halves.first)):
        middle = _middle([sides[place] for place in fitted])
        for place in used:
            credits[place] = _right_of(sides[place], middle)
    return _share(credits, of)


def _middle(sides: Sequence[tuple[float, float]]) -> float:
    return math.fsum(good + bad for good, bad in sides) / (2 * len(sides))


def _right_of(sides: tuple[float, float], middle: float) -> float:
    """Which share of a pair's two completions is where it should be."""
    good, bad = sides
    return ((good > middle) + (bad < middle)) / 2
