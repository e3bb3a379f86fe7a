"""What a refused caller's program can read: `google.rpc.ErrorInfo`, `RetryInfo`, and gRPC's own retry pushback."""

from __future__ import annotations

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from services.runtime.errors import ServiceError

DOMAIN = "palate.dev"
"""`ErrorInfo.domain` of every error."""

PUSHBACK = "grpc-retry-pushback-ms"
"""Milliseconds after which gRPC clients retry by themselves; a negative number makes them stop."""


def trailing_metadata(error: ServiceError) -> tuple[tuple[str, str | bytes], ...]:
    """Details of `error` as gRPC carries them."""
    details = [_packed(ErrorInfo(reason=error.reason, domain=DOMAIN))]
    metadata: list[tuple[str, str | bytes]] = []
    if error.retry_after is not None:
        milliseconds = max(1, round(error.retry_after * 1000))
        metadata.append((PUSHBACK, str(milliseconds)))
        delay = Duration()
        delay.FromMilliseconds(milliseconds)
        details.append(_packed(RetryInfo(retry_delay=delay)))
    status = Status(code=error.code.value[0], message=str(error), details=details)
    return (*metadata, ("grpc-status-details-bin", status.SerializeToString()))


def _packed(message: ErrorInfo | RetryInfo) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)
    return packed
