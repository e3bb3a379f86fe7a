"""What can go wrong inside a service, and the one table that turns it into status codes."""

from __future__ import annotations

import re
from typing import ClassVar

import grpc

_MOST_BYTES = 1600
"""Of a message: it travels twice in metadata, of which gRPC takes 8 KiB, and may quote names of the caller's choice."""


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class ServiceError(Exception):
    """Root of everything a servicer raises on purpose; the message says what to do and holds no user text.

    Attributes:
        code: Status the caller sees.
        reason: Stable name of the cause, UPPER_SNAKE, for programs to match on.
        retry_after: Seconds after which the same call may succeed; None where waiting does not help.
    """

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL
    reason: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(_cut(message))
        self.retry_after = retry_after


def _cut(message: str) -> str:
    """One line, and short: a name with line breaks would look like several lines of a log."""
    encoded = _CONTROL.sub(" ", message).encode("utf-8", "replace")
    text = encoded[:_MOST_BYTES].decode("utf-8", "ignore")
    return text if len(encoded) <= _MOST_BYTES else f"{text}..."


class InvalidRequest(ServiceError):
    """The request itself is wrong and will fail again."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "INVALID_REQUEST"


class TooLarge(ServiceError):
    """The request is bigger than the server could ever hold."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "TOO_LARGE"


class NotFound(ServiceError):
    """What the request names does not exist here."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "NOT_FOUND"


class NotServed(ServiceError):
    """The call is of another service, or of another version of this one."""

    code = grpc.StatusCode.UNIMPLEMENTED
    reason = "NOT_SERVED"


class WrongPin(ServiceError):
    """The caller expects another revision, version, digest or publisher than the server has."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "WRONG_PIN"


class Overloaded(ServiceError):
    """The queue is full; `retry_after` says when to come back."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "OVERLOADED"


class NotPossible(ServiceError):
    """What is asked for cannot be done as things are; the message says what is in the way."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "NOT_POSSIBLE"


class EngineFailed(ServiceError):
    """The engine raised on a part of the work, tried by itself; the rest was done."""

    code = grpc.StatusCode.INTERNAL
    reason = "ENGINE_FAILED"


class NotReady(ServiceError):
    """The server is loading or draining; another replica can take the call."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "NOT_READY"


class Expired(ServiceError):
    """The deadline passed before the work was done."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    reason = "EXPIRED"


class Unauthenticated(ServiceError):
    """The credentials are missing, unknown or expired."""

    code = grpc.StatusCode.UNAUTHENTICATED
    reason = "UNAUTHENTICATED"


class PermissionDenied(ServiceError):
    """The caller is known, and its roles do not allow this."""

    code = grpc.StatusCode.PERMISSION_DENIED
    reason = "PERMISSION_DENIED"
