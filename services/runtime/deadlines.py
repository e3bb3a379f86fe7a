"""How long a call may take: the caller's deadline, bounded by the server's own."""

from __future__ import annotations

import time

import grpc


def deadline_of(context: grpc.aio.ServicerContext, max_seconds: float) -> float:
    """The moment (`time.monotonic` seconds) at which the call's work is worth nothing any more.

    Calls without a deadline, and calls with a longer one than the server grants, get the server's maximum.
    """
    remaining = context.time_remaining()
    return time.monotonic() + (max_seconds if remaining is None else min(remaining, max_seconds))
