"""Asks a server's `grpc.health.v1` how it is; the stubs of that service are not among our dependencies."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import grpc

from palate.client import ChannelOptions
from palate.client.channel import call_metadata, errors_of, open_channel

LIVE = "live"
"""The name that says only that the process lives."""

_SERVICE = "grpc.health.v1.Health"
_STATUS = {b"\x08\x01": "SERVING", b"\x08\x02": "NOT_SERVING"}


def ask_health(
    target: str, options: ChannelOptions, names: Iterable[str], timeout: float
) -> tuple[dict[str, str], float]:
    """Status of every name that the server knows, and the milliseconds of one question.

    Raises:
        CallError: It does not answer.
    """
    found: dict[str, str] = {}
    with open_channel(target, options) as channel, errors_of(target, _SERVICE):
        check: Any = channel.unary_unary(f"/{_SERVICE}/Check")
        metadata = call_metadata(options)
        for name in names:
            begin = time.perf_counter()
            try:
                answer = check(_request(name), timeout=timeout, metadata=metadata)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.NOT_FOUND:
                    raise
                continue
            found[name] = _STATUS.get(answer, "UNKNOWN")
    return found, (time.perf_counter() - begin) * 1000


def _request(service: str) -> bytes:
    """`HealthCheckRequest(service=...)`, which is one short string field."""
    return b"\x0a" + bytes([len(service)]) + service.encode() if service else b""
