"""Who makes the call that is being handled: its identity, else where it comes from; and what he may do."""

from __future__ import annotations

from contextvars import ContextVar

from services.runtime.identity import Identity
from services.runtime.roles import ANY, Role, check_roles

_CALLER: ContextVar[str] = ContextVar("caller", default="")
_ROLES: ContextVar[frozenset[Role]] = ContextVar("roles", default=frozenset())

_IDENTITY = "identity:"
_LOCAL = ("ipv4:127.", "ipv6:%5B::1%5D", "ipv6:[::1]", "unix:")


def enter_call(identity: Identity | None, peer: str) -> None:
    """Remembers who calls, for everything that this call's task and its children do from now on.

    Args:
        identity: Who it is; None where the server knows nobody, and everyone may do everything.
        peer: As gRPC names it, e.g. "ipv4:10.0.0.7:51234".
    """
    _CALLER.set(origin(peer) if identity is None else f"{_IDENTITY}{identity.name}")
    _ROLES.set(ANY if identity is None else identity.roles)


def current_caller() -> str:
    """Who makes this call; empty outside of one."""
    return _CALLER.get()


def check_caller(allowed: frozenset[Role], act: str, remedy: str) -> None:
    """Whether who makes this call may do something that not everyone may who may make the call.

    Raises:
        PermissionDenied: None of his roles may.
    """
    check_roles(current_caller().removeprefix(_IDENTITY), _ROLES.get(), allowed, act, remedy)


def origin(peer: str) -> str:
    """Where a call comes from: the host, so that many connections are no more than one; locally the connection."""
    return peer if peer.startswith(_LOCAL) else peer.rpartition(":")[0] or peer
