"""A gRPC server that receives bytes and counts them: what a publication would cost if nothing were checked or kept."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

import grpc

METHOD = "/bare.Bytes/Send"
"""Takes a stream of byte messages, answers their total size as eight bytes."""

_MAX_MESSAGE = 4 * 1024 * 1024


@contextmanager
def bare_server() -> Iterator[str]:
    """The address of one in a process of its own, ended with the context."""
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=_main, args=(theirs,), daemon=True)
    process.start()
    try:
        yield f"127.0.0.1:{mine.recv()}"
    finally:
        process.terminate()
        process.join()


def _main(told: Connection) -> None:
    asyncio.run(_serve(told))


async def _serve(told: Connection) -> None:
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", _MAX_MESSAGE)])
    handlers = {"Send": grpc.stream_unary_rpc_method_handler(_count)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bare.Bytes", handlers),))
    told.send(server.add_insecure_port("127.0.0.1:0"))
    await server.start()
    await server.wait_for_termination()


async def _count(messages: AsyncIterator[bytes], _: grpc.aio.ServicerContext) -> bytes:
    total = 0
    async for message in messages:
        total += len(message)
    return total.to_bytes(8, "little")
