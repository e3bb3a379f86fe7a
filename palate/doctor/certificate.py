"""Looks at a server's certificate by a TLS handshake of its own: who signed it, its dates, its names.

gRPC says only that there was no connection; OpenSSL names the cause, and shows a certificate that is no longer valid.
"""

from __future__ import annotations

import socket
import ssl
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from palate.client import Tls
from palate.doctor.findings import Answer, bad, good, warning

CHECK = "certificate"
_NO_CHECK_TIME = 0x200000
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which the module ssl has no name for: the dates are looked at afterwards."""

_DAY = 24 * 3600.0
_SOON_DAYS = 14.0
"""Who renews certificates by hand needs so long; cert-manager renews earlier than that."""


def examine_certificate(host: str, port: int, tls: Tls, timeout: float) -> Iterator[Answer]:
    """Every answer about the certificate of who listens there; a bad one is the last.

    Args:
        host: Where to connect, an address or a name.
        port: Where to connect.
        tls: What to trust and to show; its `server_name` is the name to expect, by default `host`.
        timeout: Seconds for each handshake.
    """
    name = tls.server_name or host
    try:
        seen, stays = _handshake(host, port, _context(tls), name, timeout)
        if not stays:
            yield bad(CHECK, "the server hung up after the handshake", _own(tls))
            return
        yield _dates(seen, time.time())
        yield _name(host, port, tls, timeout, seen)
    except OSError as error:
        yield _failure(error, tls)


class _UnusableFiles(OSError):
    """What the caller gave is no certificate, or the key of another one."""


def _name(host: str, port: int, tls: Tls, timeout: float, seen: Mapping[str, Any]) -> Answer:
    """Whether it is for the name that is expected; all else has been checked before."""
    name = tls.server_name or host
    try:
        _handshake(host, port, _context(tls, with_name=True), name, timeout)
    except ssl.SSLCertVerificationError:
        remedy = f"Call it by one of these names, say --server-name, or have a certificate made for {name}"
        return bad("name", f"the certificate is for {', '.join(_names(seen)) or 'no name'}, not for {name}", remedy)
    return good("name", f"the certificate is for {name}")


def _failure(error: OSError, tls: Tls) -> Answer:
    """Why there was no handshake."""
    match error:
        case _UnusableFiles():
            remedy = "Is each of them a whole PEM file, and --key the key of --certificate?"
            return bad("own files", f"--ca, --certificate or --key cannot be used: {error}", remedy)
        case ssl.SSLCertVerificationError():
            remedy = "Give the authority that signed it as --ca (cert-manager: ca.crt of the Secret)"
            return bad(CHECK, f"not of the authority that you trust ({error.verify_message})", remedy)
        case ssl.SSLError():
            return _no_handshake(error, tls)
        case TimeoutError():
            remedy = "It hangs, or it does not speak TLS: is it the port of the server that does?"
            return bad(CHECK, "whoever listens there says nothing", remedy)
    remedy = "Is the server running, and are host and port right? A firewall or network policy may be in the way"
    return bad("connection", f"none: {error.strerror or error}", remedy)


def _context(tls: Tls, *, with_name: bool = False) -> ssl.SSLContext:
    """What gRPC would check, without the dates; it takes any certificate of `tls.ca` as the end of a chain."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = with_name
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VerifyFlags(_NO_CHECK_TIME)
    context.set_alpn_protocols(["h2"])
    try:
        if tls.ca is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(cadata=tls.ca.decode("ascii", "replace"))
        if tls.certificate is not None and tls.key is not None:
            _show(context, tls.certificate, tls.key)
    except ssl.SSLError as error:
        raise _UnusableFiles(error.reason or str(error)) from error
    return context


def _show(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """The module takes a certificate of one's own from a file alone."""
    with tempfile.TemporaryDirectory(prefix="palate-") as folder:
        file = Path(folder) / "own.pem"
        file.touch(0o600)
        file.write_bytes(certificate + b"\n" + key)
        context.load_cert_chain(file)


def _handshake(
    host: str, port: int, context: ssl.SSLContext, name: str, timeout: float
) -> tuple[Mapping[str, Any], bool]:
    """The server's certificate, and whether the connection stays.

    With TLS 1.3 a server refuses the client's certificate after the handshake: then it hangs up, or says why; else it
    is the first to speak.
    """
    with (
        socket.create_connection((host, port), timeout) as plain,
        context.wrap_socket(plain, server_hostname=name) as encrypted,
    ):
        seen = encrypted.getpeercert() or {}
        try:
            return seen, encrypted.recv(1) != b""
        except ConnectionError:
            return seen, False


def _no_handshake(error: ssl.SSLError, tls: Tls) -> Answer:
    reason = error.reason or str(error)
    if "ALERT" in reason:
        return bad(CHECK, f"refused: {reason}", _own(tls))
    return bad(CHECK, f"no TLS at this port ({reason})", "Leave --ca out, or give the port that uses TLS")


def _own(tls: Tls) -> str:
    if tls.certificate is None:
        return "The server seems to ask for a certificate of yours: give --certificate and --key"
    return "The server does not take your certificate: is it signed by its --tls-client-ca, and valid today?"


def _dates(seen: Mapping[str, Any], now: float) -> Answer:
    begins, ends = (ssl.cert_time_to_seconds(seen[name]) for name in ("notBefore", "notAfter"))
    if now < begins:
        return bad(CHECK, f"not valid before {seen['notBefore']}", "Check the clocks of both machines, or renew it")
    days = (ends - now) / _DAY
    if days < 0:
        renew = "Renew it (cert-manager: `kubectl describe certificate` says why it was not), and see that it is read"
        return bad(CHECK, f"expired {-days:.0f} days ago, on {seen['notAfter']}", renew)
    told = f"valid until {seen['notAfter']}, {days:.0f} days from now"
    if days < _SOON_DAYS:
        return warning(CHECK, told, "Renew it soon (cert-manager: `kubectl describe certificate` says why it was not)")
    return good(CHECK, told)


def _names(seen: Mapping[str, Any]) -> list[str]:
    return [value for _, value in seen.get("subjectAltName", ())]
