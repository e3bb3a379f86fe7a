"""`--json FILE` of the commands: what they found, for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

JsonFile = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Where to write the result as JSON.")]


def write_json(file: Path | None, document: Mapping[str, Any]) -> None:
    """Writes a result where it is asked for.

    Raises:
        typer.BadParameter: The file cannot be written.
    """
    if file is None:
        return
    try:
        file.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise typer.BadParameter(f"--json {file} cannot be written: {error.strerror}") from error
