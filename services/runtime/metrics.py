"""The metrics every gRPC process has, under the names that existing dashboards read."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

LATENCY_SECONDS = (
    0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.03, 0.06, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0,
)  # fmt: skip
"""Buckets for durations: scoring takes milliseconds, generation minutes."""

_METHOD = ("grpc_type", "grpc_service", "grpc_method")


class ServerMetrics:
    """The grpc-prometheus families; labels come from the registered methods, so their sets are closed."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.started = Counter("grpc_server_started", "Calls begun.", _METHOD, registry=registry)
        self.handled = Counter(
            "grpc_server_handled", "Calls ended, by status.", (*_METHOD, "grpc_code"), registry=registry
        )
        self.handling_seconds = Histogram(
            "grpc_server_handling_seconds", "Time from a call's begin to its end.", _METHOD, buckets=LATENCY_SECONDS,
            registry=registry,
        )  # fmt: skip
        self.received = Counter("grpc_server_msg_received", "Messages received.", _METHOD, registry=registry)
        self.sent = Counter("grpc_server_msg_sent", "Messages sent.", _METHOD, registry=registry)
        self.in_flight = Gauge("palate_calls_in_flight", "Calls being handled now.", registry=registry)
        self.ready = Gauge("palate_ready", "1 while the server is ready to take calls.", registry=registry)

    def of(self, kind: str, service: str, method: str) -> MethodMetrics:
        """The series of one method."""
        return MethodMetrics(self, (kind, service, method))


class MethodMetrics:
    """One method's series, looked up once: searching them for every call costs more than counting."""

    def __init__(self, families: ServerMetrics, labels: tuple[str, str, str]) -> None:
        self.started = families.started.labels(*labels)
        self.received = families.received.labels(*labels)
        self.sent = families.sent.labels(*labels)
        self._seconds = families.handling_seconds.labels(*labels)
        self._handled = families.handled
        self._labels = labels
        self._by_code: dict[str, Counter] = {}

    def ended(self, code: str, seconds: float) -> None:
        """A call ended with this status after so long."""
        if code not in self._by_code:
            self._by_code[code] = self._handled.labels(*self._labels, code)
        self._by_code[code].inc()
        self._seconds.observe(seconds)
