"""Corpora: inputs worth keeping, findings among them, one file for each decoder with an input in base64 a line."""

from __future__ import annotations

import base64
import random
from collections.abc import Iterable
from pathlib import Path

CORPORA = Path(__file__).with_name("corpora")

_MOST_INPUTS, _MOST_BYTES = 60, 1024
"""What is kept of a run in one corpus: few inputs, and short ones."""


def read(name: str) -> list[bytes]:
    """Every input of a corpus; none where there is no file."""
    file = CORPORA / f"{name}.txt"
    return [base64.b64decode(line) for line in file.read_text().splitlines()] if file.exists() else []


def write(name: str, inputs: Iterable[bytes]) -> None:
    """Replaces a corpus; equal inputs are kept once, short ones first."""
    lines = sorted({base64.b64encode(data).decode() for data in inputs}, key=lambda line: (len(line), line))
    CORPORA.mkdir(exist_ok=True)
    (CORPORA / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))


def unpack(name: str, folder: Path, more: Iterable[bytes]) -> None:
    """Writes a corpus, and `more`, into a folder as libFuzzer reads it: a file for each input."""
    folder.mkdir(parents=True)
    for number, data in enumerate([*read(name), *more]):
        (folder / f"{number:05}").write_bytes(data)


def keep(name: str, folder: Path) -> None:
    """Adds some of the inputs that a run found, the same ones for the same folder."""
    before = read(name)
    found = sorted(data for file in folder.iterdir() if len(data := file.read_bytes()) <= _MOST_BYTES)
    room = max(0, _MOST_INPUTS - len(before))
    write(name, [*before, *random.Random(name).sample(found, min(room, len(found)))])
