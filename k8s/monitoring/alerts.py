"""Every alert; each is one function, which says what is wrong, what it means, and what to do."""

from __future__ import annotations

from k8s.monitoring.alerts_serving import (
    budget_burns_fast,
    budget_burns_slowly,
    no_scrape,
    not_ready,
    queue_wait,
    shedding,
)
from k8s.monitoring.alerts_taste import not_finite, old_version, parity, score_drift
from k8s.monitoring.alerts_training import divergence, kl_runaway, publish_failing, stalled
from k8s.monitoring.rules import Alert, Clock
from k8s.monitoring.thresholds import Thresholds

_ALL = (
    *(budget_burns_fast, budget_burns_slowly, queue_wait, shedding, no_scrape, not_ready),
    *(parity, score_drift, not_finite, old_version),
    *(publish_failing, stalled, kl_runaway, divergence),
)


def alerts(clock: Clock, thresholds: Thresholds) -> tuple[Alert, ...]:
    """All of them, in the order of the runbook."""
    return tuple(alert(clock, thresholds) for alert in _ALL)
