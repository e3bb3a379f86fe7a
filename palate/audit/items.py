"""What a probe is made of: texts, put together into items that each say once which way a model leans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, NamedTuple


class Text(NamedTuple):
    """What is scored; `take` tells apart several scorings of the same text, which else is scored once."""

    prompt: str
    completion: str
    take: int = 0


class Measure(StrEnum):
    """What an item's scores s are put together to. An item *hits* where the model does what the probe looks for."""

    PAIR = "pair"
    """Two texts, first the one with what the probe looks for: hits where s0 − s1 > 0."""

    SQUARE = "square"
    """Four texts, the interaction: hits where (s0 − s1) − (s2 − s3) > 0."""

    ORDER = "order"
    """Four texts, the same two answers under two conditions: hits where s0 − s1 and s2 − s3 differ in sign."""

    REPEAT = "repeat"
    """One text scored twice in other company: hits where both scores are more than `statistics.MOVED` SD apart."""

    @property
    def texts(self) -> int:
        """How many texts an item has."""
        return {"pair": 2, "square": 4, "order": 4, "repeat": 2}[self.value]


Alternative = Literal["greater", "two-sided"]
"""What is a fault: more hits than the null says, or also fewer."""


@dataclass(frozen=True, slots=True)
class Item:
    """One trial.

    Attributes:
        texts: As many as the measure wants, in its order.
        variant: Which of several ways this one is made in, for a closer look; empty = there is one way.
    """

    texts: tuple[Text, ...]
    variant: str = ""


@dataclass(frozen=True, slots=True)
class Probe:
    """Items that ask one question of a reward model.

    Attributes:
        name: Key, e.g. "verbosity".
        fault: What the model does where this probe is flagged, as the end of "it ...".
        measure: How an item's scores are put together.
        alternative: What is tested against the null.
        items: The trials.
        null: Share of hits that is no fault.
        is_preference: Whether it asks which of two answers is better, so that its hits are errors; such texts say how
            far the scores of a model are apart (`palate.audit.scale`).
        left_out: Reason → what of a file was not made an item.
    """

    name: str
    fault: str
    measure: Measure
    alternative: Alternative
    items: tuple[Item, ...]
    null: float = 0.5
    is_preference: bool = False
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        wrong = next((item for item in self.items if len(item.texts) != self.measure.texts), None)
        if wrong is not None:
            raise ValueError(f"probe {self.name}: a {self.measure} has {self.measure.texts} texts, not {wrong.texts!r}")


def pairs(rows: Sequence[tuple[str, str, str]], variants: Sequence[str] = ()) -> tuple[Item, ...]:
    """Items of (prompt, completion with what is looked for, completion without)."""
    names = variants or [""] * len(rows)
    return tuple(
        Item((Text(prompt, one), Text(prompt, other)), name)
        for (prompt, one, other), name in zip(rows, names, strict=True)
    )
