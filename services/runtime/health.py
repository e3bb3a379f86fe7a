"""Readiness, composed of named parts and told to those who ask or watch by `grpc.health.v1`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from services.runtime.callers import origin
from services.runtime.fairness import Holdings

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN

LIVE = "live"
"""Health name that says only that the event loop turns; neither model nor queue touches it."""


class Health:
    """Ready when every named part is; `live` from the start; nothing is ready again once draining.

    Args:
        service_names: Full gRPC service names that share this readiness, e.g. "palate.v1.RewardService".
        parts: What has to become ready, e.g. ("model", "parity").
        max_watchers: How many may watch at once, shared as calls are; whoever asks once is always answered.
    """

    def __init__(self, service_names: Sequence[str], parts: Sequence[str], max_watchers: int = 1024) -> None:
        self._names = (*service_names, "")
        self._parts = dict.fromkeys(parts, False)
        self._draining = False
        self._servicer = _HealthServicer({**dict.fromkeys(self._names, _NOT_SERVING), LIVE: _SERVING}, max_watchers)

    @property
    def loaded(self) -> bool:
        """Whether calls can be answered; stays true while draining, when late calls are still taken."""
        return all(self._parts.values())

    @property
    def ready(self) -> bool:
        """What probes are told: loaded, and not draining."""
        return self.loaded and not self._draining

    def missing(self) -> list[str]:
        """The parts that are not ready."""
        return [part for part, is_ready in self._parts.items() if not is_ready]

    def add_to(self, server: grpc.aio.Server) -> None:
        """Registers the health service; it may be in several servers."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    def set(self, part: str, is_ready: bool) -> None:
        """Changes one part and tells everyone who watches."""
        if part not in self._parts:
            raise KeyError(f"{part} is not a part of this health; it has {sorted(self._parts)}")
        self._parts[part] = is_ready
        self._tell()

    def drain(self) -> None:
        """Says NOT_SERVING from now on; `live` stays."""
        self._draining = True
        self._tell()

    def _tell(self) -> None:
        self._servicer.tell(dict.fromkeys(self._names, _SERVING if self.ready else _NOT_SERVING))


class _HealthServicer(health_pb2_grpc.HealthServicer):
    """Answers from `statuses`; grpcio-health-checking's own forgets all who watch a name when one of them leaves."""

    def __init__(self, statuses: dict[str, HealthCheckResponse.ServingStatus.ValueType], max_watchers: int) -> None:
        self._statuses = statuses
        self._watchers = Holdings(max_watchers)
        self._changed = asyncio.Event()

    def tell(self, statuses: dict[str, HealthCheckResponse.ServingStatus.ValueType]) -> None:
        """Replaces statuses, and wakes everyone who watches."""
        self._statuses |= statuses
        self._changed.set()
        self._changed = asyncio.Event()

    async def Check(  # noqa: N802
        self, request: HealthCheckRequest, context: grpc.aio.ServicerContext
    ) -> HealthCheckResponse:
        """The status of one name; NOT_FOUND where there is none."""
        if request.service not in self._statuses:
            known = ", ".join(repr(name) for name in self._statuses)
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no such name; this server's health has {known}")
        return HealthCheckResponse(status=self._statuses[request.service])

    async def Watch(  # noqa: N802
        self, request: HealthCheckRequest, context: grpc.aio.ServicerContext
    ) -> None:
        """Every change of one name's status; a name that is unknown stays so, which is said once."""
        if request.service not in self._statuses:
            await context.write(HealthCheckResponse(status=_UNKNOWN))
            return
        watcher = origin(context.peer())
        if self._watchers.excess(watcher, 1) > 0:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many watch already; ask with Check")
        self._watchers.change(watcher, 1)
        try:
            await self._follow(request.service, context)
        finally:
            self._watchers.change(watcher, -1)

    async def _follow(self, name: str, context: grpc.aio.ServicerContext) -> None:
        told = None
        while True:
            changed, status = self._changed, self._statuses[name]
            if status != told:
                await context.write(HealthCheckResponse(status=status))
                told = status
            await changed.wait()
