"""Who makes the call that is being handled: its identity, else where it comes from."""

from __future__ import annotations

from contextvars import ContextVar

_CALLER: ContextVar[str] = ContextVar("caller", default="")

_LOCAL = ("ipv4:127.", "ipv6:%5B::1%5D", "ipv6:[::1]", "unix:")


def enter_call(identity: str, peer: str) -> None:
    """Remembers who calls, for everything that this call's task and its children do.

    Args:
        identity: Name of the identity; empty where the server knows none.
        peer: As gRPC names it, e.g. "ipv4:10.0.0.7:51234".
    """
    _CALLER.set(f"identity:{identity}" if identity else origin(peer))


def current_caller() -> str:
    """Who makes this call; empty outside of one."""
    return _CALLER.get()


def origin(peer: str) -> str:
    """Where a call comes from: the host, so that many connections are no more than one; locally the connection."""
    return peer if peer.startswith(_LOCAL) else peer.rpartition(":")[0] or peer
