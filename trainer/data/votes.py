"""Votes: what several annotators said of the same two completions, put together."""

from __future__ import annotations

import statistics
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from trainer.data.comparisons import PREFERENCE, SWAPPED, Comparison, Label, side_free


@dataclass(frozen=True, slots=True)
class Vote:
    """What one annotator said of a pair; "" is an annotator whom nobody names."""

    annotator: str
    label: Label


@dataclass(frozen=True, slots=True)
class Pair:
    """Two completions of one prompt and every vote on them, at least one.

    Attributes:
        prompt: As in the comparisons.
        a: One completion.
        b: The other.
        votes: In the order of the comparisons, as seen from these sides.
        group: Of the first comparison.
        margin: Mean of the margins that comparisons name; None where none does.
    """

    prompt: str
    a: str
    b: str
    votes: tuple[Vote, ...]
    group: str = ""
    margin: float | None = None

    @property
    def share(self) -> float:
        """Share of the votes for `a`; a tie counts half."""
        return statistics.fmean(PREFERENCE[vote.label] for vote in self.votes)

    @property
    def kept_together(self) -> Hashable:
        """What goes as one into a part, or a draw, of the data: the group, or the texts where there is none."""
        return self.group or (self.a, self.b)

    def judged(self) -> Comparison:
        """One comparison that says what most votes say: a tie where neither side has more than the other."""
        label: Label = "tie" if self.share == 0.5 else "a" if self.share > 0.5 else "b"
        return Comparison(self.prompt, self.a, self.b, label, "", self.group, self.margin)


@dataclass(frozen=True, slots=True)
class VoteCounts:
    """How many votes there are, and how they lie.

    Attributes:
        pairs: Different pairs of completions.
        votes: Votes on them.
        ties: Votes for neither side.
        undecided: Pairs with as many votes for one side as for the other.
        fewest: Votes of the pair that has the fewest.
        most: Votes of the pair that has the most.
        annotators: Different names of annotators.
        unnamed: Votes without a name.
    """

    pairs: int
    votes: int
    ties: int
    undecided: int
    fewest: int
    most: int
    annotators: int
    unnamed: int


def pairs_of(rows: Sequence[Comparison]) -> tuple[Pair, ...]:
    """Comparisons of the same two completions of a prompt as one pair, whichever side they were on."""
    found: dict[tuple[str, str, str], list[Comparison]] = {}
    for row in rows:
        found.setdefault(side_free(row)[:3], []).append(row)
    return tuple(_pair(same) for same in found.values())


def _pair(same: Sequence[Comparison]) -> Pair:
    first = same[0]
    votes = tuple(Vote(row.annotator, row.label if row.a == first.a else SWAPPED[row.label]) for row in same)
    margins = [row.margin for row in same if row.margin is not None]
    return Pair(first.prompt, first.a, first.b, votes, first.group, statistics.fmean(margins) if margins else None)


def count_votes(pairs: Sequence[Pair]) -> VoteCounts:
    """Counts over `pairs`, at least one."""
    votes = [vote for pair in pairs for vote in pair.votes]
    sizes = [len(pair.votes) for pair in pairs]
    return VoteCounts(
        pairs=len(pairs),
        votes=len(votes),
        ties=sum(vote.label == "tie" for vote in votes),
        undecided=sum(pair.share == 0.5 for pair in pairs),
        fewest=min(sizes),
        most=max(sizes),
        annotators=len({vote.annotator for vote in votes} - {""}),
        unnamed=sum(not vote.annotator for vote in votes),
    )
