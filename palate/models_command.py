"""`palate models`: which models a reward server has, and changing that while it serves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from palate.access import Access
from palate.client import AdminClient, ModelListing, PalateError, RewardClient
from palate.connection import Seconds, Target, options_for, with_access
from palate.exit_codes import STOPPED

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="See and change the models of a reward server. Changing them needs the role admin, and a server that was "
    "started with --model-root.",
)

Name = Annotated[str, typer.Argument(help="Name of the model.")]


@app.command("list")
@with_access
def list_models(
    target: Target,
    timeout: Seconds = 10.0,
    *,
    access: Access,
) -> None:
    """List what the server has."""
    with _told(), RewardClient(target, timeout=timeout, options=options_for(target, access)) as reward:
        models = reward.list_models()
    rows = [("name", "default", "kind", "members", "revision"), *map(_cells, models)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:  # one line each, never cut: a revision is there to be copied
        typer.echo("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


@app.command()
@with_access
def load(
    name: Name,
    path: Annotated[str, typer.Argument(help="Folder as the server sees it: absolute, or from its model root on.")],
    target: Target,
    default: Annotated[bool, typer.Option("--default", help="Make it the default model as well.")] = False,
    revision: Annotated[str, typer.Option(help="The revision that the folder must have.")] = "",
    timeout: Seconds = 300.0,
    *,
    access: Access,
) -> None:
    """Load a folder beside what is served; a model of the same name is replaced once the new one is checked."""
    with _told(), AdminClient(target, timeout=timeout, options=options_for(target, access)) as admin:
        loaded = admin.load_model(name, path, set_default=default, revision=revision)
    typer.echo(f"{name} is revision {loaded.provenance.revision} now; before: {loaded.previous_revision or 'nothing'}")


@app.command()
@with_access
def unload(
    name: Name,
    target: Target,
    timeout: Seconds = 10.0,
    *,
    access: Access,
) -> None:
    """Take a model away; calls that have begun finish."""
    with _told(), AdminClient(target, timeout=timeout, options=options_for(target, access)) as admin:
        revision = admin.unload_model(name)
    typer.echo(f"{name} is unloaded; it was revision {revision}")


@app.command("default")
@with_access
def set_default(
    name: Name,
    target: Target,
    timeout: Seconds = 10.0,
    *,
    access: Access,
) -> None:
    """Choose the model that answers requests without a name."""
    with _told(), AdminClient(target, timeout=timeout, options=options_for(target, access)) as admin:
        previous = admin.set_default_model(name)
    typer.echo(f"{name} is the default now; before: {previous}")


def _cells(model: ModelListing) -> tuple[str, ...]:
    members = str(model.member_count) if model.member_count else "-"
    return (model.name, "yes" if model.is_default else "-", model.kind, members, model.revision)


@contextmanager
def _told() -> Iterator[None]:
    """What goes wrong as one line."""
    try:
        yield
    except PalateError as error:
        typer.echo(f"palate models: {error}", err=True)
        raise typer.Exit(STOPPED) from error
