"""Series that alerts and dashboards share, computed once."""

from __future__ import annotations

import math
from collections.abc import Iterator

from k8s.monitoring.rules import DAY, FLEET, HOUR, MINUTE, Clock, Recording

BUDGET_WINDOWS = {"5m": 5 * MINUTE, "30m": 30 * MINUTE, "1h": HOUR, "6h": 6 * HOUR, "3d": 3 * DAY}
"""What the error budget's alerts look back on; they keep these names in a rehearsal."""

_OURS = 'grpc_service=~"palate.v1.*|inference.*"'
_BAD = 'grpc_code=~"Internal|Unknown|Unavailable|DeadlineExceeded|DataLoss"'
"""What is the service's fault. Shedding is not among them: it has an alert of its own, and clients come back."""

TREND_SECONDS = HOUR


def recordings(clock: Clock) -> tuple[Recording, ...]:
    """All of them, none built on another."""
    return (*_budget(clock), *_serving(clock), *_versions(), *_training(clock))


def _budget(clock: Clock) -> Iterator[Recording]:
    for name, seconds in BUDGET_WINDOWS.items():
        record, window = f"palate:errors:ratio_rate{name}", clock(seconds)
        calls = f"grpc_server_handled_total{{{_OURS}%s}}"
        items = "palate_reward_items_total%s"
        yield Recording(record, _ratio(calls % f", {_BAD}", calls % "", window), {"sli": "calls"})
        yield Recording(record, _ratio(items % '{outcome=~"failed|expired"}', items % "", window), {"sli": "items"})


def _ratio(some: str, every: str, window: str) -> str:
    """The share of `some` in `every`; 0 where there is none of it yet, and nothing where nothing happens at all."""
    whole = f"sum by ({FLEET}) (rate({every}[{window}]))"
    return f"(sum by ({FLEET}) (rate({some}[{window}])) or 0 * {whole}) / ({whole} > 0)"


def _serving(clock: Clock) -> Iterator[Recording]:
    window = clock(5 * MINUTE)
    calls = f"grpc_server_handled_total{{{_OURS}%s}}"
    yield Recording("palate:calls:rate5m", f"sum by ({FLEET}) (rate({calls % ''}[{window}]))")
    shed = calls % ', grpc_code="ResourceExhausted"'
    yield Recording("palate:shed:ratio_rate5m", _ratio(shed, calls % "", window))
    buckets = " or ".join(
        f"sum by ({FLEET}, le) (rate(palate_{service}_queue_seconds_bucket[{window}]))"
        for service in ("reward", "policy")
    )
    yield Recording("palate:queue_wait_seconds:p99_5m", f"histogram_quantile(0.99, {buckets})")
    tokens = "palate_reward_tokens_total%s"
    yield Recording("palate:padding:ratio_rate5m", _ratio(tokens % '{kind="padding"}', tokens % "", window))
    scores = f"sum by ({FLEET}, model, le) (rate(palate_reward_calibrated_score_bucket[{clock(15 * MINUTE)}]))"
    yield Recording("palate:score_drift:median15m", f"histogram_quantile(0.5, {scores})")


def _versions() -> Iterator[Recording]:
    """The weights that were published last. Those that a replica starts with were not: it has only just come."""
    published = "palate_policy_version_timestamp_seconds and palate_policy_version_incarnation > 0"
    newest = f"palate_policy_version_timestamp_seconds == on ({FLEET}) group_left () max by ({FLEET}) ({published})"
    yield Recording(
        "palate:newest_version:fingerprint", f"max by ({FLEET}) (palate_policy_version_fingerprint and ({newest}))"
    )


def _training(clock: Clock) -> Iterator[Recording]:
    """How a run's scores go: the correlation with time over the last hour, 1 = up and up, -1 = down and down."""
    window = clock(TREND_SECONDS)
    spread = clock.seconds(TREND_SECONDS) / math.sqrt(12)  # of the moments of an hour
    for name, series in (
        ("proxy", "palate_training_objective_scores"),
        ("gold", "palate_training_watch_gold"),
    ):
        old_enough = f"and palate_training_step offset {window}"  # else an hour is not full
        yield Recording(
            f"palate:training_{name}:trend1h",
            f"deriv({series}[{window}]) * {spread:.1f} / stddev_over_time({series}[{window}]) {old_enough}",
        )
