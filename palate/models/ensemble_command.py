"""`palate ensemble`: several reward models as one folder that is served under one name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from palate.exit_codes import STOPPED
from palate.file_errors import unwritable
from palate.models.ensemble import write_ensemble
from palate.models.folder import FolderError

app = typer.Typer(add_completion=False)


@app.command()
def run(
    members: Annotated[list[Path], typer.Argument(metavar="MEMBER...", help="Folders of reward models, at least two.")],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    logit_scale: Annotated[float, typer.Option(help="Factor in the Bradley-Terry probability.")] = 1.0,
) -> None:
    """Make an ensemble: a folder that names its members, each pinned by its revision.

    The members share tokenizer, template and the way the score is read. They stay where they are: the folder names
    them by their way from it, so move all together. Serve it with `palate serve reward --model OUT`.
    """
    try:
        ensemble = write_ensemble(out, members, logit_scale=logit_scale)
    except (FolderError, OSError) as error:
        told = unwritable(out, error) if isinstance(error, OSError) else str(error)
        typer.echo(f"palate ensemble: {told}", err=True)
        raise typer.Exit(STOPPED) from error
    for member in ensemble.members:
        typer.echo(f"{member.path}: revision {member.revision}")
    typer.echo(f"wrote {out}")
