"""What Prometheus reads of a run: its newest row, whether it lives, how publishing goes, and why it failed."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, make_wsgi_app, start_http_server

from trainer.errors import Failure, PortTaken

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Exposure:
    """Where a run shows its metrics.

    Attributes:
        port: 0 = any free one, None = nowhere.
        host: Address to listen on.
        last_scrape_seconds: How long a run that has ended waits at most until its last numbers were read.
    """

    port: int | None = None
    host: str = LOOPBACK
    last_scrape_seconds: float = 0.0


class Vitals:
    """What is known of a run between two rows of numbers."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self._step_time = Gauge(
            "palate_training_step_timestamp_seconds", "When the newest step was done (at first: when the run began), "
            "Unix time.", registry=self.registry,
        )  # fmt: skip
        self._publications = Counter(
            "palate_training_publications", "Tries to publish weights to all replicas, by outcome (ok, failed).",
            ("outcome",), registry=self.registry,
        )  # fmt: skip
        self._failed = Gauge(
            "palate_training_failed", "1 where the run has ended for this cause; seen only while the run waits for its "
            "last scrape.", ("cause",), registry=self.registry,
        )  # fmt: skip
        self._step_time.set_to_current_time()
        for outcome in ("ok", "failed"):
            self._publications.labels(outcome)
        for cause in Failure:
            self._failed.labels(cause.value)

    def step_done(self) -> None:
        """A step is done now."""
        self._step_time.set_to_current_time()

    def publication(self, *, ok: bool) -> None:
        """Weights were sent to all replicas: they serve them, or some failed."""
        self._publications.labels("ok" if ok else "failed").inc()

    def failed(self, cause: Failure) -> None:
        """The run ends without having done what it should."""
        self._failed.labels(cause.value).set(1)


class MetricsPort:
    """A running /metrics.

    Args:
        exposure: Where.
        registry: What is shown.

    Raises:
        PortTaken: Somebody else listens there.
    """

    def __init__(self, exposure: Exposure, registry: CollectorRegistry) -> None:
        self._seconds = exposure.last_scrape_seconds
        self._read = threading.Event()
        try:
            self._server, self._thread = start_http_server(exposure.port or 0, addr=exposure.host, registry=registry)
        except OSError as error:
            raise PortTaken(
                f"metrics cannot be served on {exposure.host}:{exposure.port} ({error.strerror}); choose another "
                "--prometheus-port (of PPO: --record.prometheus-port), 0 picks a free one"
            ) from error
        inner = make_wsgi_app(registry)
        self._server.set_app(lambda environ, start: _Answer(inner(environ, start), self._read))
        self.port: int = self._server.server_port

    def close(self) -> None:
        """Ends it; where that was asked for, after the numbers were read once more."""
        self._read.clear()
        self._read.wait(self._seconds)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Answer:
    """The parts of an HTTP answer; tells when they are sent."""

    def __init__(self, parts: Iterable[bytes], sent: threading.Event) -> None:
        self._parts = parts
        self._sent = sent

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._parts)

    def close(self) -> None:
        """Called by the server when nothing is left to send."""
        self._sent.set()
