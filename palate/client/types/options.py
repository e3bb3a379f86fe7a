"""How completions are to be scored, as callers of the reward service say it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias, TypedDict


class Truncation(StrEnum):
    """What to do with an item longer than the model's maximum."""

    MODEL_DEFAULT = "UNSPECIFIED"
    REJECT = "REJECT"
    LEFT = "LEFT"
    RIGHT = "RIGHT"


class Priority(StrEnum):
    """Which work goes first. HIGH needs the role expediter or admin, where the server knows its callers."""

    LOW = "LOW"
    NORMAL = "NORMAL"
    HIGH = "HIGH"


class Aggregate(StrEnum):
    """How an ensemble's members become one score. Only MODEL_DEFAULT goes with a model without members."""

    MODEL_DEFAULT = "UNSPECIFIED"
    MEAN = "MEAN"
    MIN = "MIN"


@dataclass(frozen=True, slots=True)
class MeanMinusVariance:
    """An ensemble's score as mean − weight · variance: what the members agree on counts more.

    Attributes:
        weight: At least 0, in 1 / unit of the score.
    """

    weight: float


AggregateLike: TypeAlias = Aggregate | MeanMinusVariance
"""How members become one score."""


class ScoreOptions(TypedDict, total=False):
    """Keyword arguments of the calls that score.

    Attributes:
        model: Name of the model; left out = the client's.
        revision: The revision to insist on; left out = the client's, for the client's model.
        truncation: What to do with items that are too long.
        priority: Which work goes first.
        aggregate: How an ensemble's members become one score.
        members: Whether to tell every member's score too.
    """

    model: str
    revision: str
    truncation: Truncation
    priority: Priority
    aggregate: AggregateLike
    members: bool
