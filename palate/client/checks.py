"""What arguments must be, checked where they come in. What is wrong is named and never quoted: texts stay unseen."""

from __future__ import annotations

import operator
from array import array
from collections.abc import Iterable, Mapping, Sequence, Set
from enum import Enum
from numbers import Real
from typing import Any, TypeVar

from palate.client.errors import InvalidInput

T = TypeVar("T")
E = TypeVar("E", bound=Enum)

UINT32, UINT64 = 2**32 - 1, 2**64 - 1
"""Largest numbers of the contract's fields."""

LONGEST_SECONDS = 366 * 24 * 3600.0
"""gRPC takes what is much longer for a deadline in the past."""


def text(value: object, name: str) -> str:
    """A string that UTF-8 can carry."""
    if not isinstance(value, str):
        raise InvalidInput(f"{name} is {_kind(value)}; give a str")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"{name} holds a lone surrogate at character {error.start}, which is no Unicode text; clean it first, e.g. "
            'text.encode("utf-8", "replace").decode()'
        ) from None  # the cause would quote the text
    return value


def flag(value: object, name: str) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise InvalidInput(f"{name} is {_kind(value)}; give True or False")
    return value


def count(value: Any, name: str, largest: int = UINT32, smallest: int = 0) -> int:
    """A whole number in [smallest, largest]."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or not smallest <= number <= largest:
        found = _kind(value) if number is None else number
        raise InvalidInput(f"{name} is {found}; give a whole number from {smallest} to {largest}")
    return number


def number(value: object, name: str) -> float:
    """A real number; which ones make sense, the server says."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InvalidInput(f"{name} is {_kind(value)}; give a number")
    return float(value)


def seconds(value: object, name: str) -> float:
    """A time to wait, above 0: without any a call would end before it began."""
    found = number(value, name)
    if not 0 < found <= LONGEST_SECONDS:  # NaN is neither
        raise InvalidInput(f"{name} is {found:g}; give seconds above 0, at most {LONGEST_SECONDS:.0f} (a year)")
    return found


def choice(value: object, kind: type[E], name: str) -> E:
    """A member of an enumeration."""
    if not isinstance(value, kind):
        members = ", ".join(f"{kind.__name__}.{member.name}" for member in kind)
        raise InvalidInput(f"{name} is {_kind(value)}; give one of {members}")
    return value


def instance(value: object, kind: type[T], name: str) -> T:
    """A value of this package."""
    if not isinstance(value, kind):
        raise InvalidInput(f"{name} is {_kind(value)}; give a {kind.__name__}")
    return value


def several(value: Any, name: str, each: str) -> tuple[Any, ...]:
    """A list of things, of which `each` says what one is. A single text is none, though Python would split it."""
    if isinstance(value, Set):
        raise InvalidInput(f"{name} is a set, which has no order; give a list of {each}")
    return tuple(iterable(value, name, each))


def iterable(value: T, name: str, each: str) -> T:
    """As `several`, of any length; nothing is read yet."""
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise InvalidInput(f"{name} is {_kind(value)}; give a list of {each}, even for a single one")
    return value


def pair(value: Any, name: str, both: str) -> tuple[Any, Any]:
    """Two things, of which `both` says what they are; a text of two letters is none."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence) or len(value) != 2:
        raise InvalidInput(f"{name} is {_kind(value)}; give a pair {both}")
    return value[0], value[1]


def ids(value: Any, name: str) -> array[int]:
    """Token ids."""
    found = several(value, name, "token ids")
    try:
        return array("I", found)
    except (TypeError, OverflowError):
        return array("I", [count(each, f"{name}[{index}]") for index, each in enumerate(found)])


def address(value: object) -> str:
    """The address of a server."""
    found = text(value, "target")
    if not found.strip() or found.startswith(("http://", "https://")):
        raise InvalidInput(
            f"target is {found!r}; give host:port without http://, e.g. 127.0.0.1:50051 or dns:///reward:50051. For "
            "encryption give tls"
        )
    if not _has_ports(found):
        raise InvalidInput(f"target is {found!r}; end it in a port from 1 to 65535, e.g. 127.0.0.1:50051")
    return found


def _has_ports(target: str) -> bool:
    """Whether every host has a port. gRPC takes 443 for none, and what is left of 99999 beyond 65536 for 99999."""
    scheme, _, rest = target.partition(":")
    if scheme in ("dns", "ipv4", "ipv6"):
        addresses = rest.rpartition("/")[2]
    elif "://" in target or scheme in ("unix", "unix-abstract", "vsock", "xds"):
        return True  # sockets, and resolvers that know ports themselves
    else:
        addresses = target
    ports = [address.rpartition(":")[2] for address in addresses.split(",")]
    return all(port.isascii() and port.isdigit() and 0 < int(port) < 2**16 for port in ports)


def _kind(value: object) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"
