"""ScoreOptions, checked against the model that they are for."""

from __future__ import annotations

import math

from palate.models.manifest import Truncation
from palate.v1 import reward_service_pb2 as reward
from services.reward.calibration import Aggregate, Aggregation
from services.reward.model import RewardModel
from services.reward.scoring import Demand
from services.runtime.callers import check_caller
from services.runtime.errors import InvalidRequest, WrongPin
from services.runtime.roles import ABOVE_NORMAL

_TRUNCATIONS: dict[int, Truncation] = {
    reward.TRUNCATION_REJECT: "reject",
    reward.TRUNCATION_LEFT: "left",
    reward.TRUNCATION_RIGHT: "right",
}

_NORMAL = 1

_PRIORITIES = {
    reward.PRIORITY_LOW: 0,
    reward.PRIORITY_UNSPECIFIED: _NORMAL,
    reward.PRIORITY_NORMAL: _NORMAL,
    reward.PRIORITY_HIGH: 2,
}

_AGGREGATES = {
    reward.AGGREGATE_UNSPECIFIED: Aggregate.MEAN,
    reward.AGGREGATE_MEAN: Aggregate.MEAN,
    reward.AGGREGATE_MIN: Aggregate.MIN,
    reward.AGGREGATE_MEAN_MINUS_VARIANCE: Aggregate.MEAN_MINUS_VARIANCE,
}


def demand_of(options: reward.ScoreOptions, model: RewardModel, deadline: float) -> Demand:
    """How to score with `model`; `deadline` is in `time.monotonic` seconds.

    Raises:
        InvalidRequest: An option is unknown, or one that this model does not have; the message names it.
        PermissionDenied: The caller may not ask for this priority.
        WrongPin: The caller expects another revision.
    """
    check_revision(options.revision, model)
    if options.truncation != reward.TRUNCATION_UNSPECIFIED and options.truncation not in _TRUNCATIONS:
        raise InvalidRequest(f"truncation {options.truncation} is not known to this server")
    if options.priority not in _PRIORITIES:
        raise InvalidRequest(f"priority {options.priority} is not known to this server")
    priority = _PRIORITIES[options.priority]
    check_priority(priority)
    truncation = _TRUNCATIONS.get(options.truncation, model.manifest.truncation)
    aggregation = _aggregation(options, model)
    return Demand(truncation, priority, deadline, aggregation, options.include_members)


def check_priority(priority: int) -> None:
    """Whether who calls may have his work done at this priority, which is a demand's.

    Raises:
        PermissionDenied: It is above normal, and his roles do not allow that.
    """
    if priority > _NORMAL:
        check_caller(ABOVE_NORMAL, "ask for a priority above normal", "Leave the priority away, or at normal")


def check_revision(expected: str, model: RewardModel) -> None:
    """Whether `model` is what a caller expects; empty = anything.

    Raises:
        WrongPin: It has another revision.
    """
    if expected and expected != model.digests.revision:
        raise WrongPin(f"the caller expects revision {expected[:64]!r}; {model.name} has {model.digests.revision} here")


def _aggregation(options: reward.ScoreOptions, model: RewardModel) -> Aggregation:
    if not model.members:
        _refuse_for_one(options, model)
    if options.aggregate not in _AGGREGATES:
        raise InvalidRequest(f"aggregate {options.aggregate} is not known to this server")
    aggregate = _AGGREGATES[options.aggregate]
    if (aggregate is Aggregate.MEAN_MINUS_VARIANCE) != options.HasField("variance_weight"):
        raise InvalidRequest("variance_weight belongs to the aggregate MEAN_MINUS_VARIANCE: give both, or neither")
    weight = options.variance_weight
    if not (math.isfinite(weight) and weight >= 0):
        raise InvalidRequest(f"variance_weight is {weight}; it is a number of at least 0")
    return Aggregation(aggregate, weight)


def _refuse_for_one(options: reward.ScoreOptions, model: RewardModel) -> None:
    """Nothing that is about members is ignored where there are none."""
    given = {
        "aggregate": options.aggregate != reward.AGGREGATE_UNSPECIFIED,
        "variance_weight": options.HasField("variance_weight"),
        "include_members": options.include_members,
    }
    if wrong := [name for name, is_given in given.items() if is_given]:
        raise InvalidRequest(f"{' and '.join(wrong)}: {model.name} is one model without members; leave that out")
