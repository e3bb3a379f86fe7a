"""Which refusals are of a call that asks for too much at once, and not of what it asks for."""

from __future__ import annotations

import grpc
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from palate.client import MessageTooLarge, OverLimit, PalateError

_TOO_LARGE = "TOO_LARGE"


def asks_too_much(error: PalateError) -> bool:
    """Whether asking for less in one call may pass: a limit of the server, or of a message, is in the way."""
    return isinstance(error, (MessageTooLarge, OverLimit)) or _reason(error) == _TOO_LARGE


def _reason(error: PalateError) -> str:
    """The stable name of the cause that the service has sent with the status; empty where it has not."""
    cause = error.__cause__
    sent = dict(cause.trailing_metadata() or ()) if isinstance(cause, grpc.RpcError) else {}
    for detail in Status.FromString(sent.get("grpc-status-details-bin", b"")).details:
        info = ErrorInfo()
        if detail.Unpack(info):
            return str(info.reason)
    return ""
