"""What Kubernetes' HorizontalPodAutoscaler decides, as a pure function: algorithm and behaviour of autoscaling/v2.

Source: kubernetes.io, "Horizontal Pod Autoscaling", sections "Algorithm details" and "Configurable scaling behavior".
KEDA hands its triggers to the same autoscaler, as external metrics with a target value for each replica.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Rules:
    """How replicas may change.

    Attributes:
        target: Value of the metric for each replica.
        least: Fewest replicas.
        most: Most replicas.
        down_window: Seconds; down goes only as far as the highest recommendation within them.
        up_percent: Replicas that may be added within `up_period`, as a share of those at its begin.
        up_period: Seconds.
        down_pods: Replicas that may be taken away within `down_period`.
        down_period: Seconds.
        tolerance: Relative distance from the target within which nothing changes.
    """

    target: float
    least: int
    most: int
    down_window: float
    up_percent: float = 100.0
    up_period: float = 30.0
    down_pods: int = 1
    down_period: float = 120.0
    tolerance: float = 0.1


@dataclass(frozen=True, slots=True)
class State:
    """What the autoscaler remembers: (time, replicas) of recommendations and of changes, oldest first."""

    replicas: int
    recommendations: tuple[tuple[float, int], ...] = ()
    changes: tuple[tuple[float, int], ...] = ()


def decide(state: State, total: float, now: float, rules: Rules) -> State:
    """The state after looking at the metric once; `total` is its sum over all replicas."""
    wanted = _recommended(state.replicas, total, rules)
    kept = tuple(each for each in state.recommendations if each[0] > now - rules.down_window)
    recommendations = (*kept, (now, wanted))
    if wanted < state.replicas:  # stabilised: what was wanted a moment ago still counts
        wanted = min(state.replicas, max(count for _, count in recommendations))
    bounded = min(max(wanted, _lowest(state, now, rules), rules.least), _highest(state, now, rules), rules.most)
    state = replace(state, recommendations=recommendations)
    if bounded == state.replicas:
        return state
    return replace(state, replicas=bounded, changes=(*state.changes, (now, bounded - state.replicas)))


def _recommended(replicas: int, total: float, rules: Rules) -> int:
    if abs(total / (rules.target * replicas) - 1.0) <= rules.tolerance:
        return replicas
    return min(max(math.ceil(total / rules.target), rules.least), rules.most)


def _highest(state: State, now: float, rules: Rules) -> int:
    """Where replicas were at the period's begin, and so many percent more."""
    begin = state.replicas - sum(each for at, each in state.changes if at > now - rules.up_period and each > 0)
    return math.ceil(begin * (1.0 + rules.up_percent / 100.0))


def _lowest(state: State, now: float, rules: Rules) -> int:
    begin = state.replicas - sum(each for at, each in state.changes if at > now - rules.down_period and each < 0)
    return begin - rules.down_pods


def turns(changes: tuple[tuple[float, int], ...]) -> int:
    """How often the direction changed; a load that rises and falls once is followed with one turn."""
    signs = [each > 0 for _, each in changes]
    return sum(first != second for first, second in pairwise(signs))
