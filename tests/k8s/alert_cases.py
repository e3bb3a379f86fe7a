"""For every alert, what Prometheus may see: once so that it must fire, once so close that it must not.

Series are written as promtool reads them, a sample a minute: "0+6x60" begins at 0 and grows by 6, "5x60" stays.
"""

from __future__ import annotations

from dataclasses import dataclass

Series = dict[str, str]

WHOLE_DAY = 1440


@dataclass(frozen=True, slots=True)
class Case:
    """What is seen.

    Attributes:
        fires: Series with the fault.
        silent: Series without it.
        minutes: When it is looked.
        count: How many alerts fire.
    """

    fires: Series
    silent: Series
    minutes: int = 120
    count: int = 1


def _of(metric: str, instance: str = "a", job: str = "palate-reward", **more: str) -> str:
    labels = {"namespace": "rlhf", "job": job, "instance": instance, **more}
    return metric + "{" + ", ".join(f'{name}="{value}"' for name, value in labels.items()) + "}"


def _pod(pod: str, metric: str = "kube_pod_status_ready", **labels: str) -> str:
    """As kube-state-metrics shows it."""
    return _of(metric, "ksm:8080", "kube-state-metrics", pod=pod, **(labels or {"condition": "true"}))


def _calls(code: str, minute: int, minutes: int = 240) -> Series:
    name = _of("grpc_server_handled_total", grpc_service="palate.v1.RewardService", grpc_method="Score", grpc_code=code)
    return {name: f"0+{minute}x{minutes}"}


def _waits(job: str, quick: int, slow: int, bound: int) -> Series:
    """So many waits a minute within a second, and so many beyond `bound` seconds."""
    metric = f"palate_{job.removeprefix('palate-')}_queue_seconds_bucket"
    counts = {"1.0": quick, f"{bound}.0": quick, f"{2 * bound}.0": quick + slow, "+Inf": quick + slow}
    return {_of(metric, job=job, le=le): f"0+{count}x240" for le, count in counts.items()}


def _drift(model: str, median: float, items: int) -> Series:
    metric, bounds = "palate_reward_calibrated_score", (-6, -4, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 4, 6)
    below = {f"{float(bound)}": items if bound > median else 0 for bound in bounds} | {"+Inf": items}
    buckets = {_of(f"{metric}_bucket", model=model, le=le): f"0+{count}x240" for le, count in below.items()}
    return buckets | {_of(f"{metric}_count", model=model): f"0+{items}x240"}


def _replicas(**versions: tuple[int, int, int]) -> Series:
    """Replica → fingerprint, incarnation and second of the commit."""
    names = ("fingerprint", "incarnation", "timestamp_seconds")
    return {
        _of(f"palate_policy_version_{name}", replica, "palate-policy"): f"{value}x240"
        for replica, values in versions.items()
        for name, value in zip(names, values, strict=True)
    }


def _publishing_fast(replica: str, ahead: int) -> Series:
    """A replica that gets new weights every minute, scraped a little later than the other."""
    values = {"fingerprint": f"{ahead}+1x240", "incarnation": "1x240", "timestamp_seconds": "0+60x240"}
    return {_of(f"palate_policy_version_{name}", replica, "palate-fast"): each for name, each in values.items()}


def _run(metric: str, values: str, **more: str) -> Series:
    return {_of(f"palate_training_{metric}", job="palate-training", **more): values}


def _scores(proxy: str, gold: str) -> Series:
    return {
        **_run("step", "0+1x240"),
        **_run("objective_scores", proxy),
        **_run("objective_score", proxy, reward="taste"),
        **_run("watch_gold", gold),
    }


NOISE = " ".join(str(value) for value in [1, 3, 2, 2, 3, 1] * 40)

CASES = {
    "PalateErrorBudgetBurnsFast": Case(
        fires=_calls("OK", 90) | _calls("Internal", 10),
        silent=_calls("OK", 90)
        | _calls("InvalidArgument", 50)
        | _calls("ResourceExhausted", 50)
        | _calls("Internal", 2),
    ),
    "PalateErrorBudgetBurnsSlowly": Case(
        fires=_calls("OK", 990, WHOLE_DAY) | _calls("DeadlineExceeded", 10, WHOLE_DAY),
        silent=_calls("OK", 998, WHOLE_DAY) | _calls("DeadlineExceeded", 2, WHOLE_DAY),
        minutes=600,
    ),
    "PalateQueueWaitLong": Case(
        fires=_waits("palate-reward", 90, 10, 2) | _waits("palate-policy", 90, 10, 40),
        silent=_waits("palate-reward", 1000, 1, 2) | _waits("palate-policy", 90, 10, 4),
        count=2,
    ),
    "PalateShedding": Case(
        fires=_calls("OK", 90) | _calls("ResourceExhausted", 10),
        silent=_calls("OK", 97) | _calls("ResourceExhausted", 3),
    ),
    "PalateNoScrape": Case(
        fires={
            _of("up", "a"): "1x90 0x150",
            _of("up", "b"): "1x240",
            _of("up", "c", "palate-policy"): "1x90",  # a fleet that has gone
        },
        silent={
            _of("up", "a"): "1x110 0 1x129",
            _of("up", "run", "palate-training"): "1x90",  # a run that has ended
            _of("up", "failed", "palate-training"): "_x100 1x2 0x12 stale",  # seen longer dead than alive
            _of("up", "other", "postgres"): "0x240",
        },
        count=2,
    ),
    "PalateNotReady": Case(
        fires={
            _of("palate_ready", "loads"): "1x90 0x150",
            _of("palate_ready", "restarts"): "0x97 _x2 0x9 _x2 0x130",  # its startup probe fails
            _pod("palate-policy-pending-x"): "0x240",
            _pod("palate-reward-known-x"): "0x240",  # one alert for each pod
            _of("palate_ready", "known", pod="palate-reward-known-x"): "0x240",
        },
        silent={
            _of("palate_ready", "loads"): "1x106 0x134",
            _of("palate_ready", "gone"): "1x90 0x3 stale",
            _pod("palate-reward-well-x"): "1x240",
            _pod("palate-reward-evicted-x"): "0x240",
            _pod("palate-reward-evicted-x", "kube_pod_status_phase", phase="Failed"): "1x240",
            _pod("palate-ppo-ended-x"): "0x240",
            _pod("postgres-0"): "0x240",
        },
        count=4,
    ),
    "PalateParityFailed": Case(
        fires={_of("palate_reward_model_loads_total", outcome="parity"): "0x115 1x125"},
        silent={
            _of("palate_reward_model_loads_total", outcome="parity"): "1x240",  # long ago
            _of("palate_reward_model_loads_total", outcome="unusable"): "0x115 1x125",
        },
    ),
    "PalateScoreDrift": Case(
        fires=_drift("taste", -2.0, 50) | _drift("other", 2.0, 50),
        silent=_drift("taste", 1.2, 50) | _drift("seldom asked", 4.0, 1),
        count=2,
    ),
    "PalateNotFinite": Case(
        fires={
            _of("palate_reward_non_finite_scores_total", model="taste"): "0x115 2x125",
            **_run("failed", "0x118 1x2", cause="not_finite"),
        },
        silent={
            _of("palate_reward_non_finite_scores_total", model="taste"): "2x240",
            **_run("failed", "1x240", cause="rollouts"),
        },
        count=2,
    ),
    "PalateOldPolicyVersion": Case(
        # "late" has restarted after the others and serves what is in its folder: newest to come, yet not newest.
        fires=_replicas(a=(77, 2, 5000), b=(77, 2, 5001), old=(66, 9, 4000), late=(55, 0, 6000)),
        silent=_replicas(a=(77, 2, 5000), b=(77, 2, 5001))
        | {_of("palate_policy_version_fingerprint", "r", "palate-ref-policy"): "55x240"}
        | _publishing_fast("a", 0)
        | _publishing_fast("b", 1),
        count=2,
    ),
    "PalatePublishFailing": Case(
        fires=_run("publications_total", "0x112 1 2 3 4 5x125", outcome="failed"),
        silent=_run("publications_total", "0x112 1x125", outcome="failed")
        | _run("publications_total", "0+1x240", outcome="ok"),
    ),
    "PalateTrainingStalled": Case(
        fires=_run("step_timestamp_seconds", "5400x240") | _run("time_step_seconds", "30x240"),
        silent=_run("step_timestamp_seconds", "5400x240") | _run("time_step_seconds", "400x240"),  # steps take long
    ),
    "PalateKLRunaway": Case(
        fires=_run("objective_kl", "60x240") | _run("objective_kl", "4x100 15x140", instance="b"),
        silent=_run("objective_kl", "30x240") | _run("objective_kl", "1x100 8x140", instance="b"),
        count=2,
    ),
    "PalateProxyGoldDivergence": Case(
        fires=_scores("0+0.01x240", "5-0.01x240"),
        silent=_scores("0+0.01x240", NOISE),
    ),
}
