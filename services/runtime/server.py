"""The life of a server process: listen, load, serve, and drain on SIGTERM."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import math
import os
import resource
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
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
from services.runtime.tracing import Traces, TracingUnavailable, open_traces

logger = logging.getLogger(__name__)

_HANDSHAKE_SECONDS = 20.0
"""How long a connection may take to say hello, TLS included; gRPC's own two minutes hold a descriptor for each of those
who never do."""

_GOOD_BYE_SECONDS = 0.5
"""What may still be open when all calls are answered, e.g. watchers of the health, is cut after this time."""


_HEALTH_STREAMS, _HEALTH_BYTES = 16, 4096
"""On a port that has nothing but health: calls on one connection at once, and the longest question."""


@dataclass(frozen=True, slots=True)
class Service:
    """What a process serves once it has loaded.

    Attributes:
        add_to: Registers the servicers.
        close: Answers what was accepted and frees the engine; called after the last call ended.
        drain: Makes long-lived calls answer what they have read and end; called when no new call is taken any more.
    """

    add_to: Callable[[grpc.aio.Server], None]
    close: Callable[[], Awaitable[None]]
    drain: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class Early:
    """A service that is there while the process loads, because it tells whether that is done.

    Attributes:
        add_to: Registers the servicer.
        pool: Descriptor pool that describes it.
    """

    add_to: Callable[[grpc.aio.Server], None]
    pool: Any


def run(
    config: ServerConfig,
    *,
    service_names: Sequence[str],
    metrics: ServerMetrics,
    health: Health,
    load: Callable[[], Awaitable[Service]],
    early: Sequence[Early] = (),
) -> None:
    """Serves until SIGTERM or SIGINT, drains, and exits with 0; with 1 and a message where loading fails."""
    configure_logging(config.log_level)
    _leave_no_core()
    try:
        asyncio.run(_serve(config, service_names, metrics, health, load, early))
    except StartupError as error:
        print(f"the server cannot start: {error}", file=sys.stderr)
        raise SystemExit(1) from error


def _leave_no_core() -> None:
    """A crash writes no memory to disk: it holds keys, and texts of users."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def _settle() -> None:
    """What is there by now stays: the collector need not look at it again, which would hold up calls."""
    gc.collect()
    gc.freeze()


class _LateServer:
    """A server that already runs, as stubs see it: generic handlers may still be added, the faster registered ones no
    more, and the stubs offer both.
    """

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Takes effect with the next call."""
        self._server.add_generic_rpc_handlers(handlers)

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, grpc.RpcMethodHandler]) -> None:
        """Leaves them out: the generic handlers of the same service answer."""


class StartupError(Exception):
    """The server cannot start; the message says what to do."""


def configure_logging(level: str) -> None:
    """Logs go to standard error, one line each, never with texts of users."""
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)


async def _serve(
    config: ServerConfig,
    service_names: Sequence[str],
    metrics: ServerMetrics,
    health: Health,
    load: Callable[[], Awaitable[Service]],
    early: Sequence[Early],
) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    admission = Admission(health, config.max_concurrent_calls)
    traces = _open_traces(config, service_names[0])
    server, port = _build(config, service_names, metrics, health, admission, traces, early)
    health_server = await _serve_health(config, health)
    metrics_server, _ = _start_metrics(config, metrics)
    await server.start()
    service: Service | None = None
    loading = asyncio.ensure_future(load())
    stopping = asyncio.ensure_future(stop.wait())
    watching = asyncio.ensure_future(_watch_parent(stop)) if config.exit_with_parent else None
    try:
        _announce(config, port, metrics_server.server_port)
        await asyncio.wait({loading, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            service = loading.result()
            service.add_to(_LateServer(server))
            _settle()
            health.set("model", True)
            metrics.ready.set(1)
            # Not before: where a start fails, its cause is what is to be seen.
            logger.info("configuration\n%s", config.describe())
            logger.info(
                "ready on %s:%d, metrics on %s:%d", config.host, port, config.metrics_host, metrics_server.server_port
            )
            await stopping
        await _drain(server, config, health, admission, metrics, service)
    finally:
        loading.cancel()
        stopping.cancel()
        if watching is not None:
            watching.cancel()
        await server.stop(0)
        if health_server is not None:
            await health_server.stop(0)
        if service is not None:
            await service.close()
        metrics_server.shutdown()
        await asyncio.to_thread(traces.close)
        logger.info("stopped")


def _open_traces(config: ServerConfig, service: str) -> Traces:
    try:
        return open_traces(config.otlp_endpoint, service)
    except TracingUnavailable as error:
        raise StartupError(str(error)) from error


async def _watch_parent(stop: asyncio.Event) -> None:
    """Stops the server once its parent is gone: a process without a parent is handed to another one."""
    parent = os.getppid()
    while os.getppid() == parent:
        await asyncio.sleep(0.5)
    stop.set()


def _build(
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


async def _serve_health(config: ServerConfig, health: Health) -> grpc.aio.Server | None:
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


def _start_metrics(config: ServerConfig, metrics: ServerMetrics) -> tuple[Any, Any]:
    try:
        return start_http_server(config.metrics_port, addr=config.metrics_host, registry=metrics.registry)
    except OSError as error:
        raise StartupError(
            f"cannot serve metrics on {config.metrics_host}:{config.metrics_port} ({error.strerror}); "
            "--metrics-port 0 picks a free port"
        ) from error


def _announce(config: ServerConfig, port: int, metrics_port: int) -> None:
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


async def _drain(
    server: grpc.aio.Server,
    config: ServerConfig,
    health: Health,
    admission: Admission,
    metrics: ServerMetrics,
    service: Service | None,
) -> None:
    """NOT_SERVING at once, a while for clients to notice, then no new calls; accepted ones are answered."""
    logger.info("draining")
    metrics.ready.set(0)
    health.drain()
    await asyncio.sleep(config.drain_delay_seconds)
    admission.refuse()  # first, so that who is sent away now does not come back here
    if service is not None:
        service.drain()
    await admission.quiet()
    stopping = asyncio.ensure_future(server.stop(config.drain_grace_seconds))
    if await admission.answered(config.drain_grace_seconds):
        await server.stop(_GOOD_BYE_SECONDS)
    await stopping
