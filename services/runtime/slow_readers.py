"""Callers who do not read what they are sent: their calls are cut, so that they hold nothing for long."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import grpc

from services.runtime.errors import Expired
from services.runtime.status import trailing_metadata

_ENDING: set[asyncio.Task[None]] = set()
"""Statuses on their way; a task that nobody holds may be collected before it is done."""


@contextmanager
def cut_after(seconds: float, context: grpc.aio.ServicerContext) -> Iterator[None]:
    """Around the `yield` of a reply: ends the call where the reply is not taken in time.

    gRPC stands in its own write then and cannot be told to leave it. Its task is cancelled, which frees what the
    handler holds at once; the status waits behind what was sent before, until the caller reads or is gone.
    """
    handler = asyncio.current_task()
    assert handler is not None
    timer = asyncio.get_running_loop().call_later(seconds, _cut, seconds, context, handler)
    try:
        yield
    finally:
        timer.cancel()


def _cut(seconds: float, context: grpc.aio.ServicerContext, handler: asyncio.Task[object]) -> None:
    ending = asyncio.ensure_future(_end(seconds, context))
    _ENDING.add(ending)
    ending.add_done_callback(_ENDING.discard)
    handler.cancel()


async def _end(seconds: float, context: grpc.aio.ServicerContext) -> None:
    error = Expired(f"a reply was not read within {seconds:g} s; read replies as they come, or ask for less at once")
    with suppress(grpc.aio.AbortError, grpc.aio.UsageError, asyncio.InvalidStateError):
        await context.abort(error.code, str(error), trailing_metadata=trailing_metadata(error))
