"""Reflection: what a server says of its services to those who ask it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from grpc_reflection.v1alpha import reflection, reflection_pb2
from grpc_reflection.v1alpha._async import ReflectionServicer

_IDLE_SECONDS = 10.0
"""How long a stream may be open without a question; a program asks its questions at once."""


class _Pools:
    """Several descriptor pools that answer as one: what the first one lacks, the next is asked."""

    def __init__(self, pools: Sequence[Any]) -> None:
        self._pools = pools

    def FindFileByName(self, name: str) -> Any:  # noqa: N802
        return self._found("FindFileByName", name)

    def FindFileContainingSymbol(self, symbol: str) -> Any:  # noqa: N802
        return self._found("FindFileContainingSymbol", symbol)

    def FindMessageTypeByName(self, name: str) -> Any:  # noqa: N802
        return self._found("FindMessageTypeByName", name)

    def FindExtensionByNumber(self, message: Any, number: int) -> Any:  # noqa: N802
        return message.file.pool.FindExtensionByNumber(message, number)

    def FindAllExtensions(self, message: Any) -> Any:  # noqa: N802
        return message.file.pool.FindAllExtensions(message)

    def _found(self, method: str, name: str) -> Any:
        for pool in self._pools:
            try:
                return getattr(pool, method)(name)
            except KeyError:
                continue
        raise KeyError(name)


class _Reflection(ReflectionServicer):
    """The library's, whose streams end kindly when nothing more is asked."""

    async def ServerReflectionInfo(  # noqa: N802
        self, request_iterator: AsyncIterator[Any], unused_context: Any
    ) -> AsyncIterator[Any]:
        async for answer in super().ServerReflectionInfo(_while_asked(request_iterator), unused_context):
            yield answer


async def _while_asked(questions: AsyncIterator[Any]) -> AsyncIterator[Any]:
    with suppress(TimeoutError):
        while (question := await asyncio.wait_for(anext(questions, None), _IDLE_SECONDS)) is not None:
            yield question


def add_reflection(server: grpc.aio.Server, service_names: Sequence[str], pools: Sequence[Any]) -> None:
    """Reflection under both its names; the library registers the older one only, and the messages are the same.

    Args:
        server: Not started yet.
        service_names: Full names of what it serves.
        pools: Descriptor pools of services that are not in the default one.
    """
    names = [*service_names, "grpc.health.v1.Health", reflection.SERVICE_NAME]
    servicer = _Reflection(names, _Pools([descriptor_pool.Default(), *pools]))
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    for name in (reflection.SERVICE_NAME, "grpc.reflection.v1.ServerReflection"):
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": handler}),)
        )
