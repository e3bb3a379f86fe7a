"""The load generator: one process that sends requests made beforehand and keeps the answers for later reading.

It shares the machine with the servers, so it parses and checks nothing while the clock runs, and says what CPU time it
took. gRPC goes through grpcio without (de)serialising; HTTP/1.1 through plain sockets, one connection a caller.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import grpc

from palate.client.channel import Tls

OK = "OK"
_PATIENCE_SECONDS = 120.0
_MAX_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go, and who sends them.

    Attributes:
        scheme: Of the address.
        address: host:port.
        path: A gRPC method, or an HTTP path.
        tls: Encryption, gRPC only; None = none.
        metadata: What every gRPC call carries, such as a token.
    """

    scheme: Literal["grpc", "http"]
    address: str
    path: str
    tls: Tls | None = None
    metadata: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for one request.

    Attributes:
        status: "OK", a gRPC status name, or an HTTP status.
        seconds: From sending to the answer.
        body: The message, undecoded; empty where there is none.
    """

    status: str
    seconds: float
    body: bytes


@dataclass(frozen=True, slots=True)
class Sent:
    """What a run of the load generator saw; answers are in the order of the requests.

    Attributes:
        seconds: From the first request to the last answer.
        cpu_seconds: CPU time of the load generator's process.
        lag_seconds: By how much the latest request was sent later than planned.
    """

    seconds: float
    cpu_seconds: float
    answers: tuple[Answer, ...]
    lag_seconds: float = 0.0


class Load(Protocol):
    """A load generator in a process of its own."""

    def __call__(self, drive: Callable[..., Sent], *arguments: object) -> Sent:
        """Runs one of this module's functions there."""


Send: TypeAlias = Callable[[bytes], Awaitable[tuple[str, bytes]]]


@contextmanager
def load_generator() -> Iterator[Load]:
    """Starts the process; ends it at the end."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        yield lambda drive, *arguments: pool.submit(drive, *arguments).result()


def closed_loop(target: Target, requests: Sequence[bytes], callers: int) -> Sent:
    """`callers` at once, each sending its next request when it has its answer."""
    return asyncio.run(_closed_loop(target, requests, callers))


def open_loop(target: Target, requests: Sequence[bytes], moments: Sequence[float], timeout: float) -> Sent:
    """Sends each request at its moment, in seconds from the begin, whatever became of those before; gRPC only."""
    return asyncio.run(_open_loop(target, requests, moments, timeout))


def stream(target: Target, requests: Sequence[bytes]) -> Sent:
    """One bidirectional gRPC call: all requests as fast as they are taken; answers in the order in which they come."""
    return asyncio.run(_stream(target, requests))


async def _closed_loop(target: Target, requests: Sequence[bytes], callers: int) -> Sent:
    answers: list[Answer | None] = [None] * len(requests)
    waiting = iter(range(len(requests)))

    async def call(send: Send) -> None:
        for place in waiting:
            answers[place] = await _answer(send, requests[place])

    async with AsyncExitStack() as stack:
        sends = [
            await stack.enter_async_context(_opened(target, _PATIENCE_SECONDS)) for _ in range(_lines(target, callers))
        ]
        clock = _Clock()
        await asyncio.gather(*(call(sends[number % len(sends)]) for number in range(callers)))
        return clock.sent([answer for answer in answers if answer is not None])


async def _open_loop(target: Target, requests: Sequence[bytes], moments: Sequence[float], timeout: float) -> Sent:
    lags: list[float] = []

    async def call(send: Send, request: bytes, moment: float) -> Answer:
        await asyncio.sleep(begin + moment - time.perf_counter())
        lags.append(time.perf_counter() - begin - moment)
        return await _answer(send, request)

    async with _opened(target, timeout) as send:
        clock, begin = _Clock(), time.perf_counter()
        calls = (call(send, request, moment) for request, moment in zip(requests, moments, strict=True))
        return clock.sent(await asyncio.gather(*calls), max(lags, default=0.0))


async def _stream(target: Target, requests: Sequence[bytes]) -> Sent:
    async with _channel(target) as channel:
        clock = _Clock()
        begin = time.perf_counter()
        call = channel.stream_stream(target.path)(iter(requests), timeout=_PATIENCE_SECONDS, metadata=target.metadata)
        return clock.sent([Answer(OK, time.perf_counter() - begin, body) async for body in call])


class _Clock:
    """Wall and CPU time since it was made, with the garbage of before collected."""

    def __init__(self) -> None:
        gc.collect()
        self._begin, self._cpu = time.perf_counter(), time.process_time()

    def sent(self, answers: Sequence[Answer], lag: float = 0.0) -> Sent:
        return Sent(time.perf_counter() - self._begin, time.process_time() - self._cpu, tuple(answers), lag)


async def _answer(send: Send, request: bytes) -> Answer:
    begin = time.perf_counter()
    status, body = await send(request)
    return Answer(status, time.perf_counter() - begin, body)


def _lines(target: Target, callers: int) -> int:
    """Connections: HTTP/1.1 needs one for every caller, HTTP/2 one for all."""
    return callers if target.scheme == "http" else 1


def _opened(target: Target, timeout: float) -> Any:
    return _http(target) if target.scheme == "http" else _grpc(target, timeout)


@asynccontextmanager
async def _grpc(target: Target, timeout: float) -> AsyncIterator[Send]:
    async with _channel(target) as channel:
        method = channel.unary_unary(target.path)

        async def send(request: bytes) -> tuple[str, bytes]:
            try:
                return OK, await method(request, timeout=timeout, metadata=target.metadata)
            except grpc.aio.AioRpcError as error:
                return error.code().name, b""

        yield send


@asynccontextmanager
async def _channel(target: Target) -> AsyncIterator[grpc.aio.Channel]:
    """Connected, and without retries: what a server refuses shall be seen."""
    options = [("grpc.enable_retries", 0), ("grpc.max_receive_message_length", _MAX_BYTES)]
    tls = target.tls
    if tls is None:
        opened = grpc.aio.insecure_channel(target.address, options=options)
    else:
        credentials = grpc.ssl_channel_credentials(tls.ca, tls.key, tls.certificate)
        opened = grpc.aio.secure_channel(target.address, credentials, options=options)
    async with opened as channel:
        await asyncio.wait_for(channel.channel_ready(), _PATIENCE_SECONDS)
        yield channel


@asynccontextmanager
async def _http(target: Target) -> AsyncIterator[Send]:
    host, port = target.address.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    head = (
        f"POST {target.path} HTTP/1.1\r\nhost: {target.address}\r\ncontent-type: application/json\r\ncontent-length: "
    )

    async def send(request: bytes) -> tuple[str, bytes]:
        writer.write(f"{head}{len(request)}\r\n\r\n".encode() + request)
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        status = lines[0].split()[1]
        length = next(int(line.split(":")[1]) for line in lines if line.startswith("content-length:"))
        return OK if status == "200" else status, await reader.readexactly(length)

    try:
        yield send
    finally:
        writer.close()
        await writer.wait_closed()
