"""Which addresses are on this machine."""

from __future__ import annotations

import ipaddress


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
