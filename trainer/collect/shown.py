"""What a person is shown of a pair: two texts, side-swapped at random; and what their choice means."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Literal, TypeAlias

from trainer.collect.causes import Cause
from trainer.collect.labelling import Labelled, LeftOut, Verdict
from trainer.collect.pairs import DrawnPair
from trainer.data.comparisons import SWAPPED, Label

Choice: TypeAlias = Literal["first", "second", "tie", "skip"]

Way: TypeAlias = Literal["terminal", "page"]

_LABELS: dict[Choice, Label] = {"first": "a", "second": "b", "tie": "tie"}


@dataclass(frozen=True, slots=True)
class Shown:
    """A pair as somebody sees it: blind, so nothing says where a text comes from.

    Attributes:
        pair: What is compared.
        swapped: Whether the second draw is shown first.
    """

    pair: DrawnPair
    swapped: bool

    @property
    def texts(self) -> tuple[str, str]:
        """(the one shown first, the other)."""
        return (self.pair.b, self.pair.a) if self.swapped else (self.pair.a, self.pair.b)


def shown(pair: DrawnPair, seed: int, annotator: str) -> Shown:
    """The same person is always shown the same side first; others may be shown the other."""
    return Shown(pair, Random(f"{seed}/side/{annotator}/{pair.place.number}").random() < 0.5)


def verdict(seen: Shown, choice: Choice, annotator: str, seconds: float, way: Way) -> Verdict:
    """What the choice says of the pair, sides put right."""
    provenance = {"asked_in": way, "swapped": seen.swapped}
    if choice == "skip":
        return LeftOut(seen.pair, Cause.SKIPPED, annotator, seconds, provenance)
    label = _LABELS[choice]
    return Labelled(seen.pair, SWAPPED[label] if seen.swapped else label, annotator, seconds, provenance)
