"""Where an audit goes: looked at before anything is asked, and written at the end, a JSON file and a card beside it."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palate.client import PalateError
from palate.file_errors import try_folder, unwritable
from palate.rescore.kept import KeptScores


class OutProblem(PalateError):
    """The audit cannot be written; the message says what is in the way, and what to do."""


@dataclass(frozen=True, slots=True)
class Out:
    """The two files of an audit.

    Attributes:
        folder: Where they go.
        name: What both are called, without the ending.
    """

    folder: Path
    name: str

    @property
    def document(self) -> Path:
        """For programs."""
        return self.folder / f"{self.name}.json"

    @property
    def card(self) -> Path:
        """For people."""
        return self.folder / f"{self.name}.html"

    def check(self) -> None:
        """Makes the folder and looks whether both files can be written, before there is any work to lose.

        Raises:
            OutProblem: They cannot.
        """
        with telling(self.folder):
            try_folder(self.folder)
        for file in (self.document, self.card):
            if file.is_dir():
                raise OutProblem(f"{file} cannot be written: it is a folder; remove it, or choose another --out")
            with telling(file):
                if file.exists():
                    file.open("ab").close()

    def write(self, found: Mapping[str, Any], card: Callable[[Path], None]) -> None:
        """Writes what was found, and the card by `card`.

        Raises:
            OutProblem: They cannot be written.
        """
        with telling(self.document):
            text = json.dumps(found, indent=2, ensure_ascii=False)
            self.document.write_text(text + "\n", encoding="utf-8")
        with telling(self.card):
            card(self.card)


class AuditScores(KeptScores):
    """Scores of an audit, kept as they come."""

    def add(self, scores: Mapping[str, float], cut: Collection[str] = ()) -> None:
        """Keeps scores.

        Raises:
            OutProblem: They cannot be written.
        """
        with telling(self.path):
            super().add(scores, cut)


@contextmanager
def telling(file: Path) -> Iterator[None]:
    """What is in the way of writing is told with what to do.

    Raises:
        OutProblem: The file cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise OutProblem(unwritable(file, error)) from error
