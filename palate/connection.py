"""Options that every command which calls a service shares: where it is, and how to get in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from palate.access import HELP, Access, channel_options
from palate.client import ChannelOptions, PalateError
from palate.client.channel import check_way

Target = Annotated[
    str, typer.Option("--target", envvar="PALATE_TARGET", help="Address, e.g. 127.0.0.1:50051 or dns:///reward:50051.")
]
CaFile = Annotated[Path | None, typer.Option("--ca", envvar="PALATE_CA", help=HELP["ca"])]
Certificate = Annotated[
    Path | None, typer.Option("--certificate", envvar="PALATE_CERTIFICATE", help=HELP["certificate"])
]
Key = Annotated[Path | None, typer.Option("--key", envvar="PALATE_KEY", help=HELP["key"])]
ServerName = Annotated[str, typer.Option("--server-name", envvar="PALATE_SERVER_NAME", help=HELP["server_name"])]
TokenFile = Annotated[Path | None, typer.Option("--token-file", envvar="PALATE_TOKEN_FILE", help=HELP["token_file"])]
InsecureToken = Annotated[
    bool, typer.Option("--insecure-token", envvar="PALATE_INSECURE_TOKEN", help=HELP["insecure_token"])
]


def options_for(target: str, access: Access) -> ChannelOptions:
    """How to reach the server.

    Raises:
        typer.BadParameter: A file or the address cannot be used, something is missing, or the token would be readable.
    """
    try:
        options = channel_options(access)
        check_way(target, options)
    except PalateError as error:
        raise typer.BadParameter(str(error)) from error
    return options
