"""Traces, where an operator asks for them: a span for every call, and under it the stages that its items went through.

Nothing of a request's texts is in a span. OpenTelemetry is imported only where it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any
from urllib.parse import urlsplit

_NANOSECONDS = 1_000_000_000


class TracingUnavailable(Exception):
    """Traces are asked for, and nobody can get them: no OpenTelemetry, or no address; the message says what to do."""


class CallSpan:
    """The span of the call that is being handled."""

    def __init__(self, tracer: Any, span: Any) -> None:
        self._tracer = tracer
        self._span = span

    def stage(self, name: str, begin: float, end: float, **attributes: int) -> None:
        """Adds a stage that is over.

        Args:
            name: Of the stage.
            begin: Unix time, seconds.
            end: The same.
            attributes: Numbers that tell it from others.
        """
        from opentelemetry import trace

        span = self._tracer.start_span(
            name, trace.set_span_in_context(self._span), attributes=attributes, start_time=int(begin * _NANOSECONDS)
        )
        span.end(int(end * _NANOSECONDS))

    def end(self, code: str) -> None:
        """The call has ended with this status, named as in metrics."""
        from opentelemetry.trace import StatusCode

        self._span.set_attribute("grpc_code", code)
        if code != "OK":
            self._span.set_status(StatusCode.ERROR, code)
        self._span.end()


class Traces:
    """Begins spans, or none where there is no tracer.

    Args:
        tracer: OpenTelemetry's; None = nothing is traced.
        close: Sends what has not been sent yet.
    """

    def __init__(self, tracer: Any = None, close: Callable[[], None] = lambda: None) -> None:
        self._tracer = tracer
        self.close = close

    def begin(self, service: str, method: str, request_id: str, metadata: Mapping[str, str]) -> CallSpan | None:
        """A span of a call, under the caller's own where its metadata name one (`traceparent`); the current one now."""
        if self._tracer is None:
            return None
        from opentelemetry.propagate import extract
        from opentelemetry.trace import SpanKind

        attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
        span = self._tracer.start_span(
            f"{service}/{method}",
            extract(metadata),
            SpanKind.SERVER,
            {**attributes, "palate.request_id": request_id},
        )
        call = CallSpan(self._tracer, span)
        _CURRENT.set(call)
        return call


_CURRENT: ContextVar[CallSpan | None] = ContextVar("span", default=None)


def current_span() -> CallSpan | None:
    """That of the call which is being handled; None where nothing is traced."""
    return _CURRENT.get()


def open_traces(endpoint: str, service: str) -> Traces:
    """Traces that go to a collector.

    Args:
        endpoint: URL of its OTLP port (gRPC): http:// is plaintext, https:// TLS; empty = nothing is traced.
        service: What the process is called in traces.

    Raises:
        TracingUnavailable: That is no such URL, or OpenTelemetry is not installed.
    """
    if not endpoint:
        return Traces()
    if not _is_url(endpoint):
        raise TracingUnavailable(f"--otlp-endpoint {endpoint} is no URL with a host, as http://collector:4317 is one")
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise TracingUnavailable("--otlp-endpoint needs OpenTelemetry: pip install 'palate[serve,otel]'") from error
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    return Traces(provider.get_tracer("palate"), provider.shutdown)


def _is_url(endpoint: str) -> bool:
    try:
        url = urlsplit(endpoint)
        return url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:  # brackets or a port that are none
        return False
