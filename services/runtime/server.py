"""The life of a server process: listen, load, serve, and drain on SIGTERM."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import grpc

from services.runtime.admission import Admission
from services.runtime.config import ServerConfig
from services.runtime.health import Health
from services.runtime.listening import Early, StartupError, announce, open_port, serve_health, start_metrics
from services.runtime.metrics import ServerMetrics
from services.runtime.tracing import Traces, TracingUnavailable, open_traces

logger = logging.getLogger(__name__)

_GOOD_BYE_SECONDS = 0.5
"""What may still be open when all calls are answered, e.g. watchers of the health, is cut after this time."""


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
    stop = _told_to_stop()
    admission = Admission(health, config.max_concurrent_calls)
    traces = _open_traces(config, service_names[0])
    server, port = open_port(config, service_names, metrics, health, admission, traces, early)
    health_server = await serve_health(config, health)
    metrics_server, _ = start_metrics(config, metrics)
    await server.start()
    service: Service | None = None
    loading = asyncio.ensure_future(load())
    stopping = asyncio.ensure_future(stop.wait())
    watching = asyncio.ensure_future(_watch_parent(stop)) if config.exit_with_parent else None
    try:
        announce(config, port, metrics_server.server_port)
        await asyncio.wait({loading, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            service = loading.result()
            service.add_to(_LateServer(server))
            _settle()
            health.set("model", True)
            metrics.ready.set(1)
            _say_ready(config, port, metrics_server.server_port)
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


def _told_to_stop() -> asyncio.Event:
    """Is set by SIGTERM and SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def _say_ready(config: ServerConfig, port: int, metrics_port: int) -> None:
    """Not before all is there: where a start fails, its cause is what is to be seen."""
    logger.info("configuration\n%s", config.describe())
    logger.info("ready on %s:%d, metrics on %s:%d", config.host, port, config.metrics_host, metrics_port)


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
