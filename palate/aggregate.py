"""How an ensemble's members become one score, as commands and configurations say it."""

from __future__ import annotations

from enum import StrEnum

from palate.client import Aggregate, InvalidInput, MeanMinusVariance, ModelInfo
from palate.client.types import AggregateLike

HELP = {
    "aggregate": "How an ensemble's members become one score; default is the model's own way, the mean.",
    "variance_weight": "What mean-minus-variance takes off: so many times the members' variance, in 1 / unit of the "
    "score.",
}


class AggregateName(StrEnum):
    """A way to one score."""

    MEAN = "mean"
    MIN = "min"
    MEAN_MINUS_VARIANCE = "mean-minus-variance"


def aggregate_of(name: AggregateName | None, variance_weight: float | None) -> AggregateLike:
    """What a client is told.

    Raises:
        InvalidInput: A weight without the way it belongs to, or the other way round.
    """
    if (name is AggregateName.MEAN_MINUS_VARIANCE) != (variance_weight is not None):
        raise InvalidInput("a variance weight and the aggregate mean-minus-variance go together: give both, or neither")
    if variance_weight is not None:
        return MeanMinusVariance(variance_weight)
    return Aggregate.MODEL_DEFAULT if name is None else Aggregate[name.name]


def check_members(aggregate: AggregateLike, info: ModelInfo) -> None:
    """Refuses to aggregate what has no members, before anything is scored.

    Raises:
        InvalidInput: It has none.
    """
    if aggregate is not Aggregate.MODEL_DEFAULT and not info.members:
        raise InvalidInput(f"{info.provenance.model} is one model without members; leave the aggregate out")
