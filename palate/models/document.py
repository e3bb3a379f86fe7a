"""The file `palate.json`: read and written, whatever it says."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from palate.file_errors import cause_of
from palate.models.folder import FolderError

FILE_NAME = "palate.json"
FORMAT_VERSION = 1

_SHOWN_CHARACTERS = 80


class ManifestError(FolderError):
    """`palate.json` is wrong, or contradicts the folder; the message names the field and the remedy."""


def shown(value: object) -> str:
    """A value as the file has it, cut where it is long."""
    text = json.dumps(value, default=repr)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


@contextmanager
def complaints_of(path: Path) -> Iterator[None]:
    """Whatever is wrong with what the `palate.json` in the folder `path` says is said with its name."""
    try:
        yield
    except ManifestError as error:
        raise ManifestError(f"{path / FILE_NAME}: {error}") from error


def read_document(path: Path) -> dict[str, Any]:
    """What the `palate.json` in the folder `path` says, of a format that this version reads.

    Raises:
        ManifestError: It is no JSON object, or of another format.
    """
    file = path / FILE_NAME
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ManifestError(f"{file} cannot be read as JSON: {cause_of(error)}") from error
    if not isinstance(document, dict):
        raise ManifestError(f"{file}: it holds {shown(document)}; expected a JSON object")
    version = document.pop("format_version", None)
    if version != FORMAT_VERSION:
        raise ManifestError(f"{file}: format_version is {shown(version)}; expected {FORMAT_VERSION}")
    return document


def write_document(path: Path, document: Mapping[str, Any]) -> None:
    """Writes `palate.json` into an existing folder, in one move."""
    draft = path / f"{FILE_NAME}.draft"
    draft.write_text(json.dumps({"format_version": FORMAT_VERSION, **document}, indent=2) + "\n", encoding="utf-8")
    draft.replace(path / FILE_NAME)
