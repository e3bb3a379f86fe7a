"""What surrounds every call: parsing, readiness, bounds, metrics, and the one place where errors become statuses."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from services.runtime.admission import Admission
from services.runtime.callers import enter_call
from services.runtime.errors import InvalidRequest, NotServed, ServiceError
from services.runtime.identity import Guard, Identity
from services.runtime.limits import UNLIMITED
from services.runtime.metrics import MethodMetrics, ServerMetrics
from services.runtime.roles import OPEN
from services.runtime.slow_readers import cut_after
from services.runtime.status import trailing_metadata
from services.runtime.tracebacks import whereabouts
from services.runtime.tracing import Traces

logger = logging.getLogger(__name__)

REQUEST_ID = "palate-request-id"
"""Metadata key; travels back in *trailing* metadata, since initial metadata would switch client retries off."""

_REFLECTION = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")

_MAX_NAME_CHARS = 200
"""A caller may ask for anything; errors hold no long texts."""

_REQUEST_ID_FORM = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True, slots=True)
class Method:
    """A gRPC method as logs name it, and what counts its calls."""

    service: str
    name: str
    metrics: MethodMetrics

    @property
    def path(self) -> str:
        """The full name, as roles know it."""
        return f"/{self.service}/{self.name}"


_UNTRACED = Traces()

_TRUST_SECONDS = 1.0
"""How long a stream's caller is taken at his word: credentials may expire, or be taken out, while it is open."""

Check: TypeAlias = Callable[[], object]
"""Raises where a caller's credentials do not count any more."""


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Guards the methods of `services`; reflection needs any credentials, health of any protocol none."""

    def __init__(
        self,
        services: Sequence[str],
        guard: Guard,
        admission: Admission,
        metrics: ServerMetrics,
        slow_reader_seconds: float,
        traces: Traces = _UNTRACED,
    ) -> None:
        self._slow_reader_seconds = slow_reader_seconds
        self._traces = traces
        self._services = frozenset(services)
        self._guard = guard
        self._admission = admission
        self._metrics = metrics
        self._in_flight = 0
        self._wrapped: dict[str, tuple[Any, Any]] = {}

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        """Wraps the handler that would take the call."""
        service, _, name = details.method.lstrip("/").partition("/")
        handler = await continuation(details)
        if handler is None:
            return self._absent(service, name)
        if service not in self._services and service not in _REFLECTION:
            return handler
        known = self._wrapped.get(details.method)
        if known is None or known[0] is not handler:
            known = self._wrapped[details.method] = (
                handler,
                self._guarded(handler, self._method(service, name, _kind(handler))),
            )
        return known[1]

    def _method(self, service: str, name: str, kind: str) -> Method:
        return Method(service, name, self._metrics.of(kind, service, name))

    def _guarded(self, handler: Any, method: Method) -> Any:
        inner = _inner(handler)

        async def one_reply(request: Any, context: grpc.aio.ServicerContext) -> Any:
            async with self._call(method, context) as check:
                reply = await inner(_parsed(handler, method, request, check), context)
                method.metrics.sent.inc()
                return reply

        async def many_replies(request: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
            async with self._call(method, context) as check:
                async for reply in inner(_parsed(handler, method, request, check), context):
                    method.metrics.sent.inc()
                    with cut_after(self._slow_reader_seconds, context):
                        yield reply

        return _remade(handler, many_replies if handler.response_streaming else one_reply)

    def _absent(self, service: str, name: str) -> Any:
        """A handler for what nothing here handles; what is served here anybody may know, as health tells it too."""
        if service in self._services and self._admission.loading:
            return self._refusal(self._method(service, "unknown", "unary"))
        asked, served = f"{service}/{name}"[:_MAX_NAME_CHARS], ", ".join(sorted(self._services))
        error = NotServed(f"this server does not serve {asked}; it serves {served}: check the address, and the version")

        async def tell(requests: Any, context: grpc.aio.ServicerContext) -> None:
            await _abort(context, error, _request_id(_metadata(context)))

        return grpc.stream_stream_rpc_method_handler(tell)

    def _refusal(self, method: Method) -> Any:
        """A handler for methods that are not there yet because the server is still loading."""

        async def refuse(requests: Any, context: grpc.aio.ServicerContext) -> None:
            async with self._call(method, context):
                raise AssertionError("_call refuses while not ready; this is a bug")

        return grpc.stream_stream_rpc_method_handler(refuse)

    @asynccontextmanager
    async def _call(self, method: Method, context: grpc.aio.ServicerContext) -> AsyncIterator[Check]:
        """Counts the call, admits it, and turns what it raises into a status; gives what checks its caller again."""
        begin, code, metadata = time.perf_counter(), "OK", _metadata(context)
        request_id = _request_id(metadata)
        context.set_trailing_metadata(((REQUEST_ID, request_id),))
        span = self._traces.begin(method.service, method.name, request_id, metadata)
        method.metrics.started.inc()
        self._in_flight += 1
        self._metrics.in_flight.set(self._in_flight)
        end: Callable[[], None] | None = None
        try:
            check = partial(self._enter, method, metadata, context)
            identity = check()
            if method.path not in OPEN:
                end = self._admission.admit(context, UNLIMITED if identity is None else identity.limits)
            yield check
            code = _code_name(context.code())
        except ServiceError as error:
            code = _camel(error.code)
            await _abort(context, error, request_id)
        except grpc.aio.AbortError:
            code = _code_name(context.code())
            raise
        except (asyncio.CancelledError, GeneratorExit):
            code = "DeadlineExceeded" if _expired(context) else "Cancelled"
            if end is not None:  # nothing of it will be sent, also where its caller still holds the connection
                end()
            raise
        except Exception as error:
            code = "Internal"
            logger.error("a bug in %s/%s, request %s\n%s", method.service, method.name, request_id, whereabouts(error))
            await _abort(context, _bug(request_id), request_id)
        finally:
            self._in_flight -= 1
            self._metrics.in_flight.set(self._in_flight)
            seconds = time.perf_counter() - begin
            method.metrics.ended(code, seconds)
            if span is not None:
                span.end(code)
            logger.debug("%s/%s %s %.4f s, request %s", method.service, method.name, code, seconds, request_id)

    def _enter(self, method: Method, metadata: Mapping[str, str], context: grpc.aio.ServicerContext) -> Identity | None:
        """Who calls, which from now on all know that work for the call, as far as he still may call."""
        identity = self._guard.check(method.path, metadata, partial(_common_names, context))
        enter_call(identity, context.peer())
        return identity


def _parsed(handler: Any, method: Method, request: Any, check: Check) -> Any:
    received = method.metrics.received
    if not handler.request_streaming:
        received.inc()
        return parse_message(handler.request_deserializer, request)

    async def messages() -> AsyncIterator[Any]:
        checked = time.monotonic()
        async for raw in request:
            received.inc()
            if time.monotonic() - checked > _TRUST_SECONDS:
                check()
                checked = time.monotonic()
            yield parse_message(handler.request_deserializer, raw)

    return messages()


def parse_message(deserialize: Callable[[bytes], Any], raw: bytes) -> Any:
    """The message that a caller sent.

    Raises:
        InvalidRequest: The bytes are none of this kind.
    """
    try:
        return deserialize(raw)
    except (DecodeError, ValueError) as error:
        raise InvalidRequest(
            "the request is not a valid message of this method: malformed protobuf, or text that is not UTF-8"
        ) from error


def _inner(handler: Any) -> Any:
    for kind in ("unary_unary", "unary_stream", "stream_unary", "stream_stream"):
        if (behaviour := getattr(handler, kind)) is not None:
            return behaviour
    raise TypeError("a gRPC method handler without a behaviour")


def _kind(handler: Any) -> str:
    return {
        (False, False): "unary",
        (True, False): "client_stream",
        (False, True): "server_stream",
        (True, True): "bidi_stream",
    }[(handler.request_streaming, handler.response_streaming)]


def _remade(handler: Any, behaviour: Any) -> Any:
    """`handler` with another behaviour, and with raw bytes coming in: parsing is ours, so that its errors are too."""
    make = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[(handler.request_streaming, handler.response_streaming)]
    return make(behaviour, request_deserializer=None, response_serializer=handler.response_serializer)


def _request_id(metadata: Mapping[str, str]) -> str:
    """The caller's own where it is one; else a new one, which names a call in a log and need not be hard to guess."""
    given = metadata.get(REQUEST_ID, "")
    return given if _REQUEST_ID_FORM.fullmatch(given) else f"{random.getrandbits(128):032x}"


def _metadata(context: grpc.aio.ServicerContext) -> dict[str, str]:
    """What is text in a call's metadata; what is said twice is joined, as HTTP has it, so that two tokens are none."""
    found: dict[str, str] = {}
    for key, value in context.invocation_metadata() or ():
        if isinstance(value, str):
            found[key] = f"{found[key]},{value}" if key in found else value
    return found


def _common_names(context: grpc.aio.ServicerContext) -> list[str]:
    """Those of the client's certificate; empty without mTLS."""
    return [name.decode("utf-8", "replace") for name in context.auth_context().get("x509_common_name", ())]


def _expired(context: grpc.aio.ServicerContext) -> bool:
    remaining = context.time_remaining()
    return remaining is not None and remaining <= 0


async def _abort(context: grpc.aio.ServicerContext, error: ServiceError, request_id: str) -> None:
    metadata = ((REQUEST_ID, request_id), *trailing_metadata(error))
    await context.abort(error.code, str(error), trailing_metadata=metadata)


def _bug(request_id: str) -> ServiceError:
    return ServiceError(f"an internal error; the server's log has it under request {request_id}")


def _code_name(code: Any) -> str:
    if not code:
        return "OK"
    if isinstance(code, grpc.StatusCode):
        return _camel(code)
    return next((_camel(status) for status in grpc.StatusCode if status.value[0] == code), "Unknown")


def _camel(code: grpc.StatusCode) -> str:
    """The CamelCase that grpc-prometheus uses, e.g. ResourceExhausted."""
    return "OK" if code is grpc.StatusCode.OK else "".join(word.capitalize() for word in code.name.split("_"))
