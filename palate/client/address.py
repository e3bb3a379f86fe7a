"""Which addresses are on this machine, and which servers stand behind a name."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Address:
    """Where one server is.

    Attributes:
        target: host:port, or what gRPC takes else.
        name: The DNS name that it was found under, which its certificate is made out to; empty = it was given.
    """

    target: str
    name: str = ""


def addresses_of(host: str, port: int) -> list[Address]:
    """One for each address that the resolver has for a name, in a fixed order.

    Raises:
        OSError: It has none.
    """
    found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    families = {str(address[0]): family for family, _, _, _, address in found}
    return [
        Address(f"[{ip}]:{port}" if family == socket.AF_INET6 else f"{ip}:{port}", host)
        for ip, family in sorted(families.items())
    ]


def servers_behind(target: str) -> list[Address]:
    """Every server that calls to a gRPC target can reach, each by itself.

    What only gRPC can take apart (xds, a name server of one's own), a socket, and names of this machine stand for
    themselves.

    Raises:
        OSError: A name has no address.
    """
    scheme, _, rest = target.partition(":")
    if scheme in ("ipv4", "ipv6"):
        return [Address(each) for each in rest.split(",")]
    place = host_and_port(target)
    if place is None or is_loopback(place[0]) or _is_ip(place[0]):
        return [Address(target)]
    return addresses_of(*place)


def host_and_port(target: str) -> tuple[str, int] | None:
    """What a gRPC target with one host names; None for sockets, several addresses, and resolvers other than DNS."""
    scheme, _, rest = target.partition(":")
    host, _, port = (rest.removeprefix("///") if scheme == "dns" else target).rpartition(":")
    if not port.isdigit() or "/" in host or "," in host or scheme in ("unix", "unix-abstract", "vsock", "xds"):
        return None
    return host.strip("[]"), int(port)


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the host; a name other than localhost counts as reachable."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def stays_here(target: str) -> bool:
    """Whether what is sent to a gRPC target cannot leave this machine; what is not understood can.

    A target is host:port, dns:///host:port, ipv4: or ipv6: with addresses, or a Unix socket.
    """
    scheme, colon, rest = target.partition(":")
    if colon and scheme in ("unix", "unix-abstract"):
        return True
    if colon and scheme in ("ipv4", "ipv6"):
        return all(is_loopback(_host(address)) for address in rest.split(","))
    if colon and scheme == "dns":
        if rest.startswith("//") and not rest.startswith("///"):
            return False  # a name server of the caller's choice says where it goes
        rest = rest.removeprefix("///")
        return is_loopback(_host(rest))
    return is_loopback(_host(target))


def _host(address: str) -> str:
    """`address` without its port; an IPv6 address may come without brackets where it has none."""
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address if address.count(":") > 1 else address.partition(":")[0]
