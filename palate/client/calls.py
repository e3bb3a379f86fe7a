"""What all clients are: one server, called with a deadline, until the client is closed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import grpc
from google.protobuf.message import Message as ProtoMessage

from palate.client import checks
from palate.client.channel import (
    ChannelOptions,
    call_metadata,
    checked_size,
    errors_of,
    open_async_channel,
    open_channel,
    pauses,
    stream_pauses,
)
from palate.client.errors import ClientClosed, is_from_proxy, pause_before


class _Client:
    """What blocking and awaited clients share.

    Attributes:
        target: Address of the server.
    """

    def __init__(self, service: str, target: str, timeout: float, options: ChannelOptions | None) -> None:
        self.target = target
        self._service = service
        self._timeout = checks.seconds(timeout, "timeout")
        self._options = ChannelOptions() if options is None else checks.instance(options, ChannelOptions, "options")
        self._metadata = call_metadata(self._options)
        self._pauses = pauses(service, self._options)
        self._stream_pauses = stream_pauses(self._options)
        self._closed = False

    def _seconds(self, timeout: float | None) -> float:
        """The deadline of a call; None = the client's."""
        return self._timeout if timeout is None else checks.seconds(timeout, "timeout")

    def _begin(
        self,
        method: Callable[..., Any],
        request: ProtoMessage | Iterator[ProtoMessage | bytes],
        seconds: float,
    ) -> Any:
        """Begins a call with its deadline."""
        self._check_open()
        if isinstance(request, ProtoMessage):
            checked_size(request, self._options)
        return method(request, timeout=seconds, metadata=self._metadata)

    def _check_open(self) -> None:
        if self._closed:
            raise ClientClosed(self.target)


class BlockingClient(_Client):
    """A server, called and waited for; close it, or use `with`."""

    def __init__(self, service: str, target: str, timeout: float, options: ChannelOptions | None) -> None:
        super().__init__(service, target, timeout, options)
        self._channel = open_channel(target, self._options)

    def close(self) -> None:
        """Ends the connection; later calls raise `ClientClosed`."""
        self._closed = True
        self._channel.close()

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(
        self,
        method: Callable[..., Any],
        request: ProtoMessage | Iterator[ProtoMessage | bytes],
        timeout: float | None,
    ) -> Any:
        deadline = time.monotonic() + self._seconds(timeout)
        with errors_of(self.target, self._service):
            for pause in self._pauses:
                try:
                    return self._begin(method, request, deadline - time.monotonic())
                except grpc.RpcError as error:
                    if not is_from_proxy(error) or time.monotonic() + pause >= deadline:
                        raise
                time.sleep(pause)
            return self._begin(method, request, deadline - time.monotonic())

    def _replies(self, method: Callable[..., Any], request: ProtoMessage, seconds: float) -> Generator[Any, None, None]:
        """Replies as they come; begun again while none has come. Closed early, it cancels the call."""
        deadline = time.monotonic() + seconds
        with errors_of(self.target, self._service):
            for pause in (*self._stream_pauses, None):
                has_begun, call = False, self._begin(method, request, deadline - time.monotonic())
                try:
                    for reply in call:
                        has_begun = True
                        yield reply
                    return
                except grpc.RpcError as error:
                    if has_begun or (wait := _until_next(error, pause, deadline)) is None:
                        raise
                finally:
                    call.cancel()
                time.sleep(wait)


class AwaitedClient(_Client):
    """A server, awaited; close it, or use `async with`. Make it inside a running event loop."""

    def __init__(self, service: str, target: str, timeout: float, options: ChannelOptions | None) -> None:
        super().__init__(service, target, timeout, options)
        self._channel = open_async_channel(target, self._options)

    async def close(self) -> None:
        """Ends the connection; calls that are out and later ones raise `ClientClosed`."""
        self._closed = True
        await self._channel.close()

    async def __aenter__(self) -> Self:
        self._check_open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _call(self, method: Callable[..., Awaitable[Any]], request: ProtoMessage, timeout: float | None) -> Any:
        deadline = time.monotonic() + self._seconds(timeout)
        with self._errors():
            for pause in self._pauses:
                try:
                    return await self._begin(method, request, deadline - time.monotonic())
                except grpc.RpcError as error:
                    if not is_from_proxy(error) or time.monotonic() + pause >= deadline:
                        raise
                await asyncio.sleep(pause)
            return await self._begin(method, request, deadline - time.monotonic())

    async def _replies(
        self, method: Callable[..., Any], request: ProtoMessage, seconds: float
    ) -> AsyncGenerator[Any, None]:
        """Replies as they come; begun again while none has come. Closed early, it cancels the call."""
        deadline = time.monotonic() + seconds
        with self._errors():
            for pause in (*self._stream_pauses, None):
                has_begun, call = False, self._begin(method, request, deadline - time.monotonic())
                try:
                    async for reply in call:
                        has_begun = True
                        yield reply
                    return
                except grpc.RpcError as error:
                    if has_begun or (wait := _until_next(error, pause, deadline)) is None:
                        raise
                finally:
                    call.cancel()
                await asyncio.sleep(wait)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """As `errors_of`; gRPC cancels what is out when its channel is closed, though nobody cancelled the task."""
        try:
            with errors_of(self.target, self._service):
                yield
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if self._closed and task is not None and not task.cancelling():
                raise ClientClosed(self.target) from error
            raise


def _until_next(error: grpc.RpcError, pause: float | None, deadline: float) -> float | None:
    """Seconds until a stream is begun again; None where it is given up."""
    wait = None if pause is None else pause_before(error, pause)
    return None if wait is None or time.monotonic() + wait >= deadline else wait
