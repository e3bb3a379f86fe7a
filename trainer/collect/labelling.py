"""What a labeller is: pairs go in, and of each comes a label, or why there is none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from trainer.collect.causes import Cause
from trainer.collect.pairs import DrawnPair
from trainer.data.comparisons import Label


@dataclass(frozen=True, slots=True)
class Labelled:
    """Somebody's preference.

    Attributes:
        pair: What was compared.
        label: Which side is better; sides are those of the pair, however they were shown.
        annotator: Who says so.
        seconds: Time it took.
        provenance: How it came about.
    """

    pair: DrawnPair
    label: Label
    annotator: str
    seconds: float
    provenance: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """No label, and why; it can never be read as one.

    Attributes:
        pair: What was to be compared.
        cause: Why.
        annotator: Who gave none.
        seconds: Time it took.
        provenance: How it came about.
    """

    pair: DrawnPair
    cause: Cause
    annotator: str
    seconds: float
    provenance: Mapping[str, Any] = field(default_factory=dict)


Verdict: TypeAlias = Labelled | LeftOut


class Stopped(Exception):
    """The labeller wants to go on another time."""


class Labeller(Protocol):
    """Somebody who compares.

    Attributes:
        conditions: What must be the same for all rows of a file, by name.
        asks_again: Whether the same two texts may be compared twice.
        batch: Most pairs that are drawn ahead in one call.
    """

    conditions: Mapping[str, Any]
    asks_again: bool
    batch: int

    def verdicts(self, pairs: Sequence[DrawnPair]) -> Iterator[Verdict]:
        """One for each pair, in order; each is written down before the next is asked for.

        Raises:
            Stopped: From the iterator: whoever compares has had enough.
        """
        ...


@dataclass(slots=True)
class Tally:
    """How far a collection is: what the file shall hold, what it holds, and what was left out in this run."""

    wanted: int
    held: int = 0
    left_out: Counter[Cause] = field(default_factory=Counter)
