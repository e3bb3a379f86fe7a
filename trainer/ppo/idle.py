"""Measures in which share of a step each service had nothing of the run to do."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

ServiceName = Literal["policy", "reward", "ref"]


class BusyMeter:
    """How long a service had something to do; several calls at a time count once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls = 0
        self._begun = self._seconds = 0.0

    @contextmanager
    def busy(self) -> Iterator[None]:
        """The service has a call while what is inside runs."""
        with self._lock:
            if not self._calls:
                self._begun = time.monotonic()
            self._calls += 1
        try:
            yield
        finally:
            with self._lock:
                self._calls -= 1
                if not self._calls:
                    self._seconds += time.monotonic() - self._begun

    def seconds(self) -> float:
        """How long it was busy so far."""
        with self._lock:
            return self._seconds + (time.monotonic() - self._begun if self._calls else 0.0)


class Workload:
    """The meters of all services that a run calls."""

    def __init__(self) -> None:
        self._meters: dict[ServiceName, BusyMeter] = {}

    def meter(self, service: ServiceName) -> BusyMeter:
        """The one of a service; who asks for it calls that service."""
        return self._meters.setdefault(service, BusyMeter())

    def seconds(self) -> dict[ServiceName, float]:
        """How long each service was busy so far."""
        return {service: meter.seconds() for service, meter in self._meters.items()}


def idle_metrics(
    before: Mapping[ServiceName, float], after: Mapping[ServiceName, float], seconds: float
) -> dict[str, float]:
    """idle/<service>_share of a step.

    Args:
        before: How long each service was busy until the step began.
        after: Until it ended.
        seconds: How long the step took.
    """
    return {
        f"idle/{service}_share": min(1.0, max(0.0, 1 - (after[service] - before[service]) / seconds))
        for service in before
    }
