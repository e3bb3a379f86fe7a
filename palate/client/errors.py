"""What a call can raise.

PalateError
├── InvalidInput           an argument is wrong, found before sending; also a ValueError
├── ClientClosed           the client was closed before; make another
├── ItemsFailed            scores() of a reply in which an item has none
├── MessageTooLarge        the request is over the size limit; found before sending
└── CallError              the server, or the way to it, answered with a status
    ├── InvalidArgument    the request is wrong: mend it
    │   └── OverLimit      it, or its reply, is over the size limit of who receives it: ask for less at once
    ├── NotServed          another service is there, or one that does not know this call: check the address
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


class InvalidInput(PalateError, ValueError):
    """An argument is wrong; the message names it and says what to give. Nothing was sent."""


class ClientClosed(PalateError):
    """The client was closed."""

    def __init__(self, target: str) -> None:
        super().__init__(f"the client of {target} is closed; make another one, and close it when all calls are done")


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


class OverLimit(InvalidArgument):
    """A message is over the size limit of who receives it: the server's, or in replies the client's."""


class NotServed(CallError):
    """What answers there is another service, or does not know this call."""


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
    """The server has a bug, fails on what the message names, or answered as it never does on purpose."""


_BY_CODE: dict[grpc.StatusCode, type[CallError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.OUT_OF_RANGE: InvalidArgument,
    grpc.StatusCode.UNIMPLEMENTED: NotServed,
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

_NO_CONNECTION = ("last error", "errors resolving", "resolution failed")
"""What gRPC says where no connection came about; without it one broke."""

_REMEDIES = (
    (("errors resolving", "resolution failed"), "That name is not known here: check its spelling, and the name server"),
    (("Connection refused",), "Nothing listens there: is the server running, and are host and port right?"),
    (("No such file",), "There is no such socket: is the server running, and is the path right?"),
    (("has expired", "not yet valid"), "The server's certificate is not valid today; whoever runs it must renew it"),
    (("CERTIFICATE_VERIFY_FAILED",), "The server's certificate is not of the authority that you trust (tls.ca, --ca)"),
    (
        ("Hostname Verification",),
        "The server's certificate is for another name than the address; give that name as server_name",
    ),
    (("WRONG_VERSION_NUMBER",), "The server does not use TLS at this port: call it without, or at the port that does"),
    (
        ("Expected SETTINGS", "http1"),
        "What listens there does not speak gRPC; is it another port of the server, e.g. that of the metrics?",
    ),
    (("before receiving SETTINGS",), "What listens there says nothing: it hangs, or it does not speak gRPC"),
    (
        ("nreachable", "No route", "imed out", "imeout", "handshaker shutdown"),
        "That machine does not answer: check the address, the network and firewalls",
    ),
    (
        ("Socket closed", "reset by peer", "Broken pipe"),
        "What listens there hung up: it may want TLS (tls, --ca), or a certificate of yours that it knows (certificate "
        "and key)",
    ),
    (("",), "Is the server running, and is the address right?"),
)
"""What gRPC says, in words only, of a connection that did not come about, and what to look at; the first that fits."""

_PUSHBACK = "grpc-retry-pushback-ms"

_MAY_PASS = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED)
"""The server is away or full. The last is what gRPC says of calls that reached a server in the moment of its end."""

_BROKEN = "The connection broke during the call; has the server ended? Try again, or elsewhere"
_STOPPING = "It is shutting down; try again, or elsewhere"
_SMALLER = "Send or ask for less at once, or raise --max-message-bytes of the server and max_message_bytes here"
_LATE = (
    "either it had too little time (a longer timeout, or fewer items), or it cannot be reached (check the address, the "
    "network and firewalls)"
)


def call_error(error: grpc.RpcError, target: str, service: str) -> CallError:
    """The exception for what gRPC raised in a call of `service` at `target`."""
    code = grpc.StatusCode.UNAVAILABLE if _was_dropped(error) else error.code()
    trailing = _trailing(error)
    kind, message = _BY_CODE.get(code, InternalError), error.details() or code.name
    if _is_oversize(error, message):
        kind, message = OverLimit, f"{target}: {message}. {_SMALLER}"
    elif not trailing:
        message = _explained(kind, message, target, service)
    elif kind is NotServed:
        message = f"{target}: {message}"
    return kind(code, message, trailing.get("palate-request-id", ""), _retry_after(trailing))


def pause_before(error: grpc.RpcError, pause: float) -> float | None:
    """Seconds until a stream that ended so may be begun again: `pause`, or what the server said; None where it is over.

    As gRPC's own retry policy has it, which also repeats no call whose answer is too large.
    """
    trailing = _trailing(error)
    may_pass = error.code() in _MAY_PASS and not _is_oversize(error, error.details() or "")
    if not may_pass or int(trailing.get(_PUSHBACK, "0")) < 0:
        return None
    return pause if (told := _retry_after(trailing)) is None else told


def _trailing(error: grpc.RpcError) -> dict[str, str]:
    return {key: value for key, value in error.trailing_metadata() or () if isinstance(value, str)}


def _retry_after(trailing: Mapping[str, str]) -> float | None:
    milliseconds = int(trailing.get(_PUSHBACK, "-1"))
    return None if milliseconds < 0 else milliseconds / 1000


def is_from_proxy(error: grpc.RpcError) -> bool:
    """Whether a proxy answered for a server that it did not reach, by an HTTP status of its own (502, 503, 504)."""
    return error.code() is grpc.StatusCode.UNAVAILABLE and "http2 header with status" in (error.details() or "")


def _was_dropped(error: grpc.RpcError) -> bool:
    """Whether a call ended and gRPC lost why.

    It says CANCELLED, in the one word, where a server was stopped when it had received the call and not looked at it;
    of calls that their caller cancels it says who did. It says that Core failed where a call ended while an awaited
    client was still sending; and that a stream was reset (INTERNAL) where a proxy lost the server that was answering.
    """
    lost = ((grpc.StatusCode.CANCELLED, "CANCELLED"), (grpc.StatusCode.INTERNAL, "Internal error from Core"))
    was_reset = error.code() is grpc.StatusCode.INTERNAL and "RST_STREAM" in (error.details() or "")
    return was_reset or (error.code(), error.details()) in lost


def _is_oversize(error: grpc.RpcError, message: str) -> bool:
    """Of a message over the receiver's limit gRPC says what it says of a full queue, and the difference in words."""
    return error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and "message larger than max" in message


def _explained(kind: type[CallError], message: str, target: str, service: str) -> str:
    """What gRPC itself says, with what to look at; what our servers say speaks for itself."""
    if kind is Unavailable:
        return f"no answer from {target}: {message}. {_remedy(message)}"
    if kind is DeadlineExceeded:
        return f"no answer from {target} in time ({message}): {_LATE}"
    if kind is NotServed:
        return (
            f"{target} does not serve {service}, or not this call of it ({message}): it is another service, or another "
            "version; check the address. `palate ping --target` says what is there"
        )
    return message


def _remedy(transport: str) -> str:
    """What to look at where there was no answer."""
    if transport == "CANCELLED":
        return _STOPPING
    if not any(sign in transport for sign in _NO_CONNECTION):
        return _BROKEN
    return next(remedy for signs, remedy in _REMEDIES if any(sign in transport for sign in signs))
