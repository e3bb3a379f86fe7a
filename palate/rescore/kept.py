"""Scores that a service has given, kept by text as they come: a second try asks for what is missing alone."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from palate.bulk.rows import FileProblem, Row, parsed


class KeptScores:
    """Scores of one revision by `text_key`, in a JSONL file without texts. What failed is not kept, and asked again.

    Args:
        path: The file; made with the first score. A last line that a stop cut in half is dropped.

    Raises:
        FileProblem: It was not written by this class.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._scores: dict[str, float] = {}
        if path.exists():
            whole, _, _ = path.read_bytes().rpartition(b"\n")
            path.write_bytes(whole + b"\n" if whole else b"")
            self._scores = dict(_read(line, f"{path}, line {n}") for n, line in enumerate(whole.splitlines(), 1))

    def get(self, key: str) -> float | None:
        """The score of a text; None where there is none yet."""
        return self._scores.get(key)

    def add(self, scores: Mapping[str, float]) -> None:
        """Keeps scores, on the disk when this returns."""
        self._scores.update(scores)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as sink:
            sink.writelines(json.dumps({"text": key, "score": score}) + "\n" for key, score in scores.items())
            sink.flush()
            os.fsync(sink.fileno())


def text_key(row: Row) -> str:
    """What a rollout's prompt and completion are known by: a SHA-256 of both."""
    return hashlib.sha256(json.dumps([row["prompt"], row["completion"]]).encode()).hexdigest()


def _read(line: bytes, where: str) -> tuple[str, float]:
    entry = parsed(line, where)
    try:
        return str(entry.row["text"]), float(entry.row["score"])
    except (KeyError, TypeError, ValueError):
        raise FileProblem(f"{where}: {entry.problem or 'no score of a text'}; remove the file and begin anew") from None
