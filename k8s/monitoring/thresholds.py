"""What is too much: the numbers an operator may want to change; `python -m k8s.monitoring` writes the files anew."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Where alerts begin.

    Attributes:
        objective: Share of calls and of items that must not fail by the service's fault, over 30 days.
        reward_wait_seconds: 99th percentile of the wait of an item before it is scored.
        policy_wait_seconds: The same of a generation call before its first token.
        shed_share: Share of calls that are refused because a queue is full.
        drift_sd: Distance of the median score from the reference samples' mean, in their standard deviations.
        drift_items: Items that such a median is at least made of.
        stalled_seconds: A run's step must take longer than this, and ...
        stalled_steps: ... than so many steps before it, to count as stalled.
        publish_tries: Failed tries to publish that are too many within ten minutes.
        kl_nats: KL of a completion that no run should come to.
        kl_growth_nats: KL above which growth counts, ...
        kl_growth: ... and how many times its value of half an hour ago is too much.
        trend: Correlation with time, of either sign, that counts as a trend of a score.
    """

    objective: float = 0.995
    reward_wait_seconds: float = 1.0
    policy_wait_seconds: float = 30.0
    shed_share: float = 0.05
    drift_sd: float = 1.5
    drift_items: int = 100
    stalled_seconds: float = 600.0
    stalled_steps: int = 10
    publish_tries: int = 3
    kl_nats: float = 50.0
    kl_growth_nats: float = 10.0
    kl_growth: float = 3.0
    trend: float = 0.5
