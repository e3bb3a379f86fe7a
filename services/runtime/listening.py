"""What a server process listens on: the port of its services, that of its health alone, that of its metrics."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from prometheus_client import start_http_server

from services.runtime.admission import Admission
from services.runtime.config import ServerConfig
from services.runtime.health import Health
from services.runtime.interceptors import CallInterceptor
from services.runtime.metrics import ServerMetrics
from services.runtime.reflection import add_reflection
from services.runtime.security import SecurityError, guard_of, server_credentials
from services.runtime.tracing import Traces

_HANDSHAKE_SECONDS = 20.0
"""How long a connection may take to say hello, TLS included; gRPC's own two minutes hold a descriptor for each of those
who never do."""

_HEALTH_STREAMS, _HEALTH_BYTES = 16, 4096
"""On a port that has nothing but health: calls on one connection at once, and the longest question."""


@dataclass(frozen=True, slots=True)
class Early:
    """A service that is there while the process loads, because it tells whether that is done.

    Attributes:
        add_to: Registers the servicer.
        pool: Descriptor pool that describes it.
    """

    add_to: Callable[[grpc.aio.Server], None]
    pool: Any


class StartupError(Exception):
    """The server cannot start; the message says what to do."""


def open_port(
    config: ServerConfig,
    service_names: Sequence[str],
    metrics: ServerMetrics,
    health: Health,
    admission: Admission,
    traces: Traces,
    early: Sequence[Early],
) -> tuple[grpc.aio.Server, int]:
    """The server, not started, and its port.

    Raises:
        StartupError: The security settings do not hold together, or the address is taken.
    """
    try:
        guard, credentials = guard_of(config), server_credentials(config)
    except SecurityError as error:
        raise StartupError(str(error)) from error
    options = _options(config, config.max_streams_per_connection, config.max_message_bytes)
    interceptor = CallInterceptor(service_names, guard, admission, metrics, config.slow_reader_seconds, traces)
    server = grpc.aio.server(interceptors=[interceptor], options=options)
    health.add_to(server)
    for service in early:
        service.add_to(server)
    add_reflection(server, service_names, [service.pool for service in early])
    return server, _bind(server, f"{config.host}:{config.port}", credentials)


def _options(config: ServerConfig, streams: int, message_bytes: int) -> list[tuple[str, int]]:
    """What bounds a port's connections, each of which has so many calls at once, and messages up to this size."""
    return [
        ("grpc.server_handshake_timeout_ms", _milliseconds(_HANDSHAKE_SECONDS)),
        ("grpc.so_reuseport", 0),  # a port in use is an error, not a second server that gets half of the calls
        ("grpc.max_receive_message_length", message_bytes),
        ("grpc.max_send_message_length", message_bytes),
        ("grpc.max_concurrent_streams", streams),
        ("grpc.keepalive_time_ms", _milliseconds(config.keepalive_seconds)),
        ("grpc.http2.ping_timeout_ms", _milliseconds(config.keepalive_seconds / 3)),  # keepalive_timeout does nothing
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.max_connection_age_ms", _milliseconds(config.max_connection_age_seconds)),
        ("grpc.max_connection_age_grace_ms", _milliseconds(config.connection_grace_seconds)),
    ]


def _milliseconds(seconds: float) -> int:
    return min(math.ceil(seconds * 1000), 2**31 - 1)


async def serve_health(config: ServerConfig, health: Health) -> grpc.aio.Server | None:
    """A second, plaintext server that answers health alone, where one is asked for."""
    if config.health_port is None:
        return None
    server = grpc.aio.server(options=_options(config, _HEALTH_STREAMS, _HEALTH_BYTES))
    health.add_to(server)
    _bind(server, f"{config.host}:{config.health_port}", None)
    await server.start()
    return server


def _bind(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None) -> int:
    try:
        if credentials is None:
            return int(server.add_insecure_port(address))
        return int(server.add_secure_port(address, credentials))
    except RuntimeError as error:
        raise StartupError(f"cannot listen on {address}; is another server there? Port 0 picks a free one") from error


def start_metrics(config: ServerConfig, metrics: ServerMetrics) -> tuple[Any, Any]:
    """The server of the metrics, which runs, and its thread.

    Raises:
        StartupError: The address is taken.
    """
    try:
        return start_http_server(config.metrics_port, addr=config.metrics_host, registry=metrics.registry)
    except OSError as error:
        raise StartupError(
            f"cannot serve metrics on {config.metrics_host}:{config.metrics_port} ({error.strerror}); "
            "--metrics-port 0 picks a free port"
        ) from error


def announce(config: ServerConfig, port: int, metrics_port: int) -> None:
    """Writes the ports in one move, so that a reader never sees half a file.

    Raises:
        StartupError: There is no such folder, or it cannot be written to.
    """
    if config.announce is None:
        return
    draft = Path(f"{config.announce}.{os.getpid()}")
    try:
        draft.write_text(json.dumps({"port": port, "metrics_port": metrics_port, "pid": os.getpid()}))
        draft.replace(config.announce)
    except OSError as error:
        raise StartupError(f"--announce {config.announce} cannot be written ({error.strerror})") from error
