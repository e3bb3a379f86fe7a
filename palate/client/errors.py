"""What a call can raise.

PalateError
├── ItemsFailed            scores() of a reply in which an item has none
├── MessageTooLarge        the request is over the size limit; found before sending
└── CallError              the server, or the way to it, answered with a status
    ├── InvalidArgument    the request is wrong: mend it
    ├── NotFound           no such model or staging
    ├── FailedPrecondition another revision, version or publisher than expected
    ├── Overloaded         the queue is full: wait `retry_after` seconds
    ├── Unavailable        loading, draining, or not reachable: try again or elsewhere
    ├── DeadlineExceeded   not done in time
    ├── Cancelled          the caller gave up
    ├── Unauthenticated    no valid credentials
    ├── PermissionDenied   the role may not call this
    └── InternalError      a bug in the server; its log has `request_id`
"""

from __future__ import annotations

from collections.abc import Mapping

import grpc


class PalateError(Exception):
    """Root of everything this package raises on purpose."""


class ItemsFailed(PalateError):
    """Some items have no score.

    Attributes:
        failures: Index of the item → why.
    """

    def __init__(self, failures: Mapping[int, str]) -> None:
        self.failures = dict(failures)
        first = next(iter(self.failures.items()), None)
        example = "" if first is None else f"; item {first[0]}: {first[1]}"
        super().__init__(
            f"{len(self.failures)} item(s) have no score{example}. In .results each item is Scored or Failed."
        )


class MessageTooLarge(PalateError):
    """The request is over the size limit; send fewer items at once."""


class CallError(PalateError):
    """A call ended with a status.

    Attributes:
        code: The gRPC status.
        request_id: What to look for in the server's log; empty where no server answered.
        retry_after: Seconds the server asked to wait, where it did.
    """

    def __init__(self, code: grpc.StatusCode, message: str, request_id: str, retry_after: float | None) -> None:
        self.code = code
        self.request_id = request_id
        self.retry_after = retry_after
        super().__init__(message + (f" (request {request_id})" if request_id else ""))


class InvalidArgument(CallError):
    """The request is wrong and will fail again."""


class NotFound(CallError):
    """What the request names does not exist on the server."""


class FailedPrecondition(CallError):
    """The server has another revision, policy version or publisher than the caller expects."""


class Overloaded(CallError):
    """The server's queue is full."""


class Unavailable(CallError):
    """The server is loading, draining or not reachable."""


class DeadlineExceeded(CallError):
    """The call was not done in time."""


class Cancelled(CallError):
    """The caller gave up."""


class Unauthenticated(CallError):
    """The credentials are missing, expired or unknown."""


class PermissionDenied(CallError):
    """The caller's role may not call this."""


class InternalError(CallError):
    """The server has a bug, or answered with a status that it never gives on purpose."""


_BY_CODE: dict[grpc.StatusCode, type[CallError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.OUT_OF_RANGE: InvalidArgument,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.ABORTED: FailedPrecondition,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.CANCELLED: Cancelled,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
}

_NOBODY = "Is the server running, and is the address right?"
_BY_TRANSPORT = (
    ("CANCELLED", "It is shutting down; try again, or elsewhere"),
    ("CERTIFICATE_VERIFY_FAILED", "The server's certificate is not of the authority that you trust"),
    ("Hostname Verification", "The server's certificate is for another name than the address; give the server_name"),
    ("WRONG_VERSION_NUMBER", "The server does not use TLS"),
    ("Socket closed", "Is the server running, and does it want TLS or a certificate of yours?"),
)


def call_error(error: grpc.RpcError, target: str) -> CallError:
    """The exception for what gRPC raised in a call to `target`."""
    code = grpc.StatusCode.UNAVAILABLE if _was_dropped(error) else error.code()
    trailing = {key: value for key, value in error.trailing_metadata() or () if isinstance(value, str)}
    kind = _BY_CODE.get(code, InternalError)
    message = error.details() or code.name
    if kind is Unavailable and not trailing:
        message = f"no answer from {target}: {message}. {_remedy(message)}"
    pushback = trailing.get("grpc-retry-pushback-ms")
    retry_after = None if pushback is None or int(pushback) < 0 else int(pushback) / 1000
    return kind(code, message, trailing.get("palate-request-id", ""), retry_after)


def _was_dropped(error: grpc.RpcError) -> bool:
    """Whether a server was stopped when it had received the call and not looked at it.

    gRPC says CANCELLED of such a call, in the one word; of those that their caller cancels it says who did.
    """
    return error.code() is grpc.StatusCode.CANCELLED and error.details() == "CANCELLED"


def _remedy(transport: str) -> str:
    """What to look at where there was no answer; gRPC tells it in words only."""
    return next((remedy for sign, remedy in _BY_TRANSPORT if sign in transport), _NOBODY)
