"""What a run began with, beyond its settings: written down by name, so that a resumed run can be held to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from palate.file_errors import cause_of
from trainer.run_folder import RunFolderError


def read_pins(file: Path) -> dict[str, str]:
    """What is written; empty before the run has begun.

    Raises:
        RunFolderError: It cannot be read.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return {str(name): str(value) for name, value in found.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        raise RunFolderError(
            f"{file} cannot be read ({cause_of(error)}), so nobody knows with what the run began; give another --out"
        ) from error


def write_pins(file: Path, pins: Mapping[str, str]) -> None:
    """Writes them down in one move; nothing where there are none."""
    if pins:
        draft = file.with_name(f"{file.name}.draft")
        draft.write_text(json.dumps(pins, indent=2) + "\n", encoding="utf-8")
        draft.replace(file)
