"""What a policy server counts beyond what every server does; every label is from a closed set."""

from __future__ import annotations

from itertools import product

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from palate.client import PolicyVersion
from services.runtime.metrics import LATENCY_SECONDS, ServerMetrics


class PolicyMetrics:
    """Tokens, completions, queue, weights."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.server = ServerMetrics(registry)
        self.tokens = Counter("palate_policy_tokens_generated", "Tokens of finished completions.", registry=registry)
        self.completions = Counter(
            "palate_policy_completions", "Completions by why they ended (stop, length; failed: the engine raised).",
            ("finish_reason",),
            registry=registry,
        )  # fmt: skip
        self.decode_steps = Counter("palate_policy_decode_steps", "Decode steps of the engine.", registry=registry)
        self.running_rows = Gauge(
            "palate_policy_running_completions", "Completions that are being drawn.", registry=registry
        )
        self.logprob_tokens = Counter(
            "palate_policy_logprob_tokens", "Completion tokens whose logprobs were computed.", registry=registry
        )
        self.queue_tokens = Gauge(
            "palate_policy_queue_tokens", "Tokens that waiting and running calls may still compute.", registry=registry
        )
        self.queue_seconds = Histogram(
            "palate_policy_queue_seconds", "Time from a call's admission to its first step.", buckets=LATENCY_SECONDS,
            registry=registry,
        )  # fmt: skip
        self.compute_seconds = Histogram(
            "palate_policy_compute_seconds", "Time the engine worked for a call.", buckets=LATENCY_SECONDS,
            registry=registry,
        )  # fmt: skip
        self.dropped = Counter(
            "palate_policy_dropped_calls", "Calls given up before they were done (cancelled, expired).", ("reason",),
            registry=registry,
        )  # fmt: skip
        self.publishing = Counter(
            "palate_policy_publishing", "Publishing calls (acquire, stage, commit, revert, abort) and lapsed leases "
            "(expire), by outcome (ok, refused, broken).", ("operation", "outcome"), registry=registry,
        )  # fmt: skip
        self.staged_bytes = Counter("palate_policy_staged_bytes", "Bytes of weights received.", registry=registry)
        self.step = Gauge("palate_policy_version_step", "Optimiser steps behind the served weights.", registry=registry)
        self.incarnation = Gauge(
            "palate_policy_version_incarnation", "Incarnation of the run that published them.", registry=registry
        )
        self.fingerprint = Gauge(
            "palate_policy_version_fingerprint", "A number made of the digest of the served weights: replicas with the "
            "same weights show the same one.", registry=registry,
        )  # fmt: skip
        self._info = Gauge(
            "palate_policy_model_info", "1; the labels say what is loaded, and whether it never changes.",
            ("model", "engine", "dtype", "frozen"), registry=registry,
        )  # fmt: skip
        self.committed_time = Gauge(
            "palate_policy_version_timestamp_seconds", "When the served weights came to be served, Unix time.",
            registry=registry,
        )  # fmt: skip

        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        """Shows every series of a closed set from the start: what appears with 1 has never risen."""
        for reason in ("stop", "length", "failed"):
            self.completions.labels(reason)
        for reason in ("cancelled", "expired"):
            self.dropped.labels(reason)
        for operation, outcome in product(
            ("acquire", "stage", "commit", "revert", "abort"), ("ok", "refused", "broken")
        ):
            self.publishing.labels(operation, outcome)
        self.publishing.labels("expire", "ok")

    def loaded(self, model: str, engine: str, dtype: str, *, frozen: bool) -> None:
        """Says what is served; weights may change, this does not."""
        self._info.labels(model, engine, dtype, str(frozen).lower()).set(1)

    def serving(self, version: PolicyVersion) -> None:
        """Shows which weights are served from now on."""
        self.step.set(version.step)
        self.incarnation.set(version.incarnation)
        self.fingerprint.set(_fingerprint(version.digest))
        self.committed_time.set_to_current_time()


def _fingerprint(digest: str) -> int:
    """The first 48 bits of a hexadecimal digest, which a metric's float64 holds exactly; 0 where there is none."""
    return int(digest[:12] or "0", 16)
