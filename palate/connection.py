"""Options that every command which calls a service shares: where it is, and how to get in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from palate.client import ChannelOptions, Tls

Target = Annotated[
    str, typer.Option("--target", envvar="PALATE_TARGET", help="Address, e.g. 127.0.0.1:50051 or dns:///reward:50051.")
]
Token = Annotated[str, typer.Option(envvar="PALATE_TOKEN", help="Bearer token.")]
CaFile = Annotated[
    Path | None,
    typer.Option("--ca", help="PEM file of the authority that signed the server's certificate; turns TLS on."),
]


def channel_options(token: str, ca: Path | None) -> ChannelOptions:
    """How to reach the server.

    Raises:
        typer.BadParameter: The file cannot be read.
    """
    if ca is None:
        return ChannelOptions(token=token)
    try:
        return ChannelOptions(token=token, tls=Tls(ca=ca.read_bytes()))
    except OSError as error:
        raise typer.BadParameter(f"{ca} cannot be read: {error.strerror}") from error
