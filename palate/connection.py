"""Options that every command which calls a service shares: where it is, and how to get in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import Field, fields
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, get_type_hints

import typer

from palate.access import HELP, Access, channel_options
from palate.client import ChannelOptions, PalateError
from palate.client.channel import check_way
from palate.client.checks import LONGEST_SECONDS
from palate.waiting import WAIT_HELP

Target = Annotated[
    str, typer.Option("--target", envvar="PALATE_TARGET", help="Address, e.g. 127.0.0.1:50051 or dns:///reward:50051.")
]
Seconds = Annotated[float, typer.Option(help="Deadline of one call in seconds.", min=0.1, max=LONGEST_SECONDS)]

Wait = Annotated[float, typer.Option("--wait", help=WAIT_HELP, min=0.0)]

Command = Callable[..., None]


def with_access(command: Command) -> Command:
    """`command` with an option for every field of `Access` where it has the parameter `access`."""
    parameters = [each for each in signature(command, eval_str=True).parameters.values() if each.name != "access"]
    parameters += [_option(each) for each in fields(Access)]

    @wraps(command)
    def run(**given: Any) -> None:
        access = Access(**{name: given.pop(name) for name in HELP})
        command(**given, access=access)

    run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]  # what typer reads, and the annotations
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


def _option(field: Field[Any]) -> Parameter:
    """The option of one field of `Access`, e.g. --token-file, and PALATE_TOKEN_FILE."""
    name = field.name
    option = typer.Option(f"--{name.replace('_', '-')}", envvar=f"PALATE_{name.upper()}", help=HELP[name])
    kind = get_type_hints(Access)[name]
    return Parameter(name, Parameter.KEYWORD_ONLY, default=field.default, annotation=Annotated[kind, option])


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
