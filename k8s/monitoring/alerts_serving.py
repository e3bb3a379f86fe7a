"""Alerts on how calls are answered, whatever the service."""

from __future__ import annotations

from k8s.monitoring.rules import FLEET, HOUR, JOBS, MINUTE, Alert, Clock
from k8s.monitoring.thresholds import Thresholds

_STEPS_OF_ERRORS = (
    "See which it is: `sum by (grpc_method, grpc_code) (rate(grpc_server_handled_total[5m]))`, and of items "
    "`sum by (outcome) (rate(palate_reward_items_total[5m]))`.",
    "Internal, or items failed: a bug or a broken engine. The client's error carries a request id; find it in the log "
    "of the replica. Roll back what was rolled out last (`kubectl rollout undo`).",
    "DeadlineExceeded, or items expired: callers allow less time than the work takes. Look at the queue's wait; add "
    "replicas, or let callers allow more.",
    "Unavailable: replicas drain or load while called. Look at restarts (`kubectl get pods`) and at the rollout.",
)


def budget_burns_fast(clock: Clock, thresholds: Thresholds) -> Alert:
    """Multi-window burn rates as in the SRE workbook, chapter 5: 2 % of a month's budget in an hour, or 5 % in six."""
    budget = 1 - thresholds.objective
    return Alert(
        "PalateErrorBudgetBurnsFast",
        f"({_burns('1h', '5m', 14.4 * budget)}) or ({_burns('6h', '30m', 6 * budget)})",
        clock(2 * MINUTE),
        "critical",
        "{{ $labels.job }}: {{ $value | humanizePercentage }} of {{ $labels.sli }} fail",
        "Calls, or items within calls that succeed, fail by the service's fault so fast that the month's budget would "
        "be gone in days. What callers do wrong (InvalidArgument and the like) and what is shed is not counted.",
        _STEPS_OF_ERRORS,
    )


def budget_burns_slowly(clock: Clock, thresholds: Thresholds) -> Alert:
    """A tenth of a month's budget in three days."""
    return Alert(
        "PalateErrorBudgetBurnsSlowly",
        _burns("3d", "6h", 1 - thresholds.objective),
        clock(HOUR),
        "warning",
        "{{ $labels.job }}: {{ $value | humanizePercentage }} of {{ $labels.sli }} have failed over three days",
        "More fails by the service's fault than the objective allows, though slowly: at this rate the month ends "
        "without any budget left.",
        _STEPS_OF_ERRORS,
    )


def _burns(long: str, short: str, share: float) -> str:
    """Over the long window, and still over the short one, so that the alert ends soon after the fault."""
    return f"palate:errors:ratio_rate{long} > {share:.6g} and palate:errors:ratio_rate{short} > {share:.6g}"


def queue_wait(clock: Clock, thresholds: Thresholds) -> Alert:
    """Work waits too long before it is begun."""
    wait = "palate:queue_wait_seconds:p99_5m"
    return Alert(
        "PalateQueueWaitLong",
        f'{wait}{{job="palate-reward"}} > {thresholds.reward_wait_seconds:g} or '
        f'{wait}{{job!="palate-reward"}} > {thresholds.policy_wait_seconds:g}',
        clock(10 * MINUTE),
        "warning",
        "{{ $labels.job }}: one in a hundred waits more than {{ $value | humanizeDuration }} to be begun",
        "The 99th percentile of the time between admission and the begin of the work. Calls are still answered, late; "
        "those with short deadlines expire next, and then the queue is full and calls are shed.",
        (
            "Is there more work than before? `palate:calls:rate5m`, and the queues: `palate_reward_queue_tokens`, "
            "`palate_policy_queue_tokens`. Then add replicas, or raise the autoscaler's maximum.",
            "Is the engine slower? `palate_reward_compute_seconds` and `palate_policy_compute_seconds`: look for CPU "
            "throttling, a busy neighbour, longer texts.",
            "Does one caller fill the queue? Others keep their share of it, but wait in front of the same engine: let "
            "a batch job use ScoreStream with low priority.",
        ),
    )


def shedding(clock: Clock, thresholds: Thresholds) -> Alert:
    """Calls are refused because there is no room."""
    return Alert(
        "PalateShedding",
        f"palate:shed:ratio_rate5m > {thresholds.shed_share:g}",
        clock(10 * MINUTE),
        "critical",
        "{{ $labels.job }}: {{ $value | humanizePercentage }} of calls are refused, the queue is full",
        "The service refuses early what it could not answer in time; clients come back after the time they are told. "
        "For some minutes that is what it should do; as a state it means too few replicas.",
        (
            "Add replicas: `kubectl scale`, or raise the autoscaler's maximum. Why has it not? Is its metric there?",
            "Look at who sends how much, and let batch jobs use streams: they wait instead of being refused.",
            "Where memory allows and waiting is better than coming back, raise `--max-queue-tokens`.",
        ),
    )


def no_scrape(clock: Clock, thresholds: Thresholds) -> Alert:
    """Nothing is known of a process, or of a whole fleet."""
    gone = f"count by ({FLEET}) (up{{{_SERVICES}}} offset {clock(HOUR)}) unless count by ({FLEET}) (up{{{_SERVICES}}})"
    known = f"up{{{JOBS}}}"
    return Alert(
        "PalateNoScrape",
        f"(avg_over_time({known}[{clock(10 * MINUTE)}]) < 0.5 and {known}) or ({gone})",  # a pod may be gone
        clock(5 * MINUTE),
        "critical",
        "{{ $labels.job }} {{ $labels.instance }}: Prometheus reads nothing",
        "A process has not answered most scrapes of ten minutes, or a fleet that had targets an hour ago has none. "
        "Other alerts on it are blind meanwhile. A server that refuses to start (a parity check that fails, weights "
        "that are missing or broken) looks like this too.",
        (
            "`kubectl get pods`, `kubectl logs --previous`: a server that cannot start says why in its last line, and "
            "exits with 1. A failed parity check names engine and deviation: serve it with another `--engine` or with "
            "`--strict`; do not raise `--parity-tolerance` before you know why.",
            "The pod is well: is `--metrics-host` an address that Prometheus reaches (0.0.0.0 in a pod), and does a "
            "network policy let it in?",
            "Killed for memory (`OOMKilled`): raise the limit, or lower `--cache-items` and the batch limits.",
        ),
    )


def not_ready(clock: Clock, thresholds: Thresholds) -> Alert:
    """A replica lives, and takes no calls; or, where kube-state-metrics is, its pod never comes to that."""
    lately = f"[{clock(5 * MINUTE)}]"  # longer than a restart takes, in which nothing is known
    unready = f'kube_pod_status_ready{{condition="true", pod=~"{_PODS}"}}'
    ended = 'kube_pod_status_phase{phase=~"Succeeded|Failed"} == 1'  # evicted, and replaced long ago
    waiting = f"max by (namespace, pod) (max_over_time({unready}{lately})) == 0 unless on (namespace, pod) ({ended})"
    return Alert(
        "PalateNotReady",
        f"max_over_time(palate_ready{lately}) == 0 or ({waiting} unless on (namespace, pod) palate_ready)",
        clock(15 * MINUTE),
        "critical",
        "{{ $labels.job }} {{ $labels.instance }} takes no calls{{ with $labels.pod }} (pod {{ . }}){{ end }}",
        "A server that loads its model or drains for longer than either may take, or a pod that does not come as far: "
        "it waits for a node, a volume, a Secret or an image, or ends again and again. The others have its share of "
        "calls.",
        (
            "`kubectl -n palate describe pod`: what does a pod in Pending or ContainerCreating wait for? A node with "
            "room (or a GPU), the claim `palate-models`, a Secret, an image.",
            "`kubectl -n palate logs`, and `--previous` where it has restarted: a server that loads says what it does, "
            "one that cannot start says why. The startup probe gives it ten minutes; a larger model wants more "
            "(`failureThreshold`).",
            "In a rollout nothing is lost yet: `kubectl -n palate rollout undo deployment/NAME`.",
            "A pod that drains and does not end: a call that lasts longer than `--drain-grace-seconds`, or a node that "
            "is gone (`kubectl get nodes`).",
        ),
    )


_SERVICES = 'job=~"palate-.*", job!="palate-training"'
_PODS = "palate-(reward|policy|ref-policy)-.*"
