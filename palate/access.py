"""What lets a caller in: certificates and a token, from files into what a channel needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from palate.client import ChannelOptions, PalateError, Tls

HELP: Mapping[str, str] = {
    "ca": "PEM file of the authority that signed the server's certificate; turns TLS on.",
    "certificate": "PEM file with one's own certificate chain, for servers that ask for one (mTLS).",
    "key": "PEM file with its private key.",
    "server_name": "Name in the server's certificate, where it is not the one in the address.",
    "token_file": "File with the bearer token; without TLS it is sent to this machine alone.",
    "insecure_token": "Send the token to other machines without TLS too; whoever can listen on the way reads it.",
}
"""Option → what it is, the same in every command that calls a service."""


class AccessError(PalateError):
    """A file cannot be used, or what is given is not enough; the message says what to give."""


@dataclass(frozen=True, slots=True)
class Access:
    """Where certificates and token are; the fields are the options in `HELP`, and nothing is needed on loopback."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    server_name: str = ""
    token_file: Path | None = None
    insecure_token: bool = False


def channel_options(access: Access) -> ChannelOptions:
    """Reads the files.

    Raises:
        AccessError: One is missing, or is not what it should be.
    """
    token = "" if access.token_file is None else _token(access.token_file)
    return ChannelOptions(tls=_tls(access), token=token, allow_plaintext_token=access.insecure_token)


def _tls(access: Access) -> Tls | None:
    if (access.certificate is None) != (access.key is None):
        raise AccessError("certificate and key go together: give both, or neither")
    if access.ca is None:
        if access.certificate is not None or access.server_name:
            raise AccessError("a certificate or a server name means TLS: give ca too, the server's authority")
        return None
    return Tls(
        ca=read_pem(access.ca, "certificate"),
        certificate=None if access.certificate is None else read_pem(access.certificate, "certificate"),
        key=None if access.key is None else read_pem(access.key, "private key"),
        server_name=access.server_name or None,
    )


def read_pem(path: Path, what: Literal["certificate", "private key"]) -> bytes:
    """A PEM file that holds one; gRPC takes anything and says later that nobody answers.

    Raises:
        AccessError: It is missing, or holds something else.
    """
    content = _read(path)
    if f"{what.upper()}-----".encode() not in content:
        raise AccessError(f"{path} is no PEM file with a {what}")
    return content


def _token(path: Path) -> str:
    try:
        token = _read(path).decode("ascii").strip()
    except UnicodeDecodeError:
        token = ""
    if not token or not token.isprintable() or " " in token:
        raise AccessError(f"{path} holds no token: one line of printable ASCII without spaces is expected")
    return token


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise AccessError(f"{path} cannot be read: {error.strerror}") from error
