"""Readiness, composed of named parts and told to `grpc.health.v1` watchers."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

LIVE = "live"
"""Health name that says only that the event loop turns; neither model nor queue touches it."""


class Health:
    """Ready when every named part is; `live` from the start; nothing is ready again once draining.

    Args:
        service_names: Full gRPC service names that share this readiness, e.g. "palate.v1.RewardService".
        parts: What has to become ready, e.g. ("model", "parity").
    """

    def __init__(self, service_names: Sequence[str], parts: Sequence[str]) -> None:
        self._names = (*service_names, "")
        self._parts = dict.fromkeys(parts, False)
        self._draining = False
        self._servicer = HealthServicer()

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
        """Registers the health service."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    async def start(self) -> None:
        """Says that the process lives and is not ready."""
        await self._servicer.set(LIVE, _SERVING)
        await self._tell()

    async def set(self, part: str, is_ready: bool) -> None:
        """Changes one part and tells everyone who watches."""
        if part not in self._parts:
            raise KeyError(f"{part} is not a part of this health; it has {sorted(self._parts)}")
        self._parts[part] = is_ready
        await self._tell()

    async def drain(self) -> None:
        """Says NOT_SERVING from now on; `live` stays."""
        self._draining = True
        await self._tell()

    async def _tell(self) -> None:
        status = _SERVING if self.ready else _NOT_SERVING
        for name in self._names:
            await self._servicer.set(name, status)
