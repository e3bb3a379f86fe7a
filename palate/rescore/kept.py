"""Scores that a service has given, kept by text as they come: a second try asks for what is missing alone."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping
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
        self._cut: set[str] = set()
        if path.exists():
            whole, _, _ = path.read_bytes().rpartition(b"\n")
            path.write_bytes(whole + b"\n" if whole else b"")
            for n, line in enumerate(whole.splitlines(), 1):
                self._take(line, f"{path}, line {n}")

    def get(self, key: str) -> float | None:
        """The score of a text; None where there is none yet."""
        return self._scores.get(key)

    def is_cut(self, key: str) -> bool:
        """Whether the score was kept as that of a text which was cut."""
        return key in self._cut

    def add(self, scores: Mapping[str, float], cut: Collection[str] = ()) -> None:
        """Keeps scores, on the disk when this returns; `cut` are the keys of those texts that were cut."""
        self._scores.update(scores)
        self._cut.update(cut)
        rows = [{"text": key, "score": score} | ({"cut": True} if key in cut else {}) for key, score in scores.items()]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as sink:
            sink.writelines(json.dumps(row) + "\n" for row in rows)
            sink.flush()
            os.fsync(sink.fileno())

    def _take(self, line: bytes, where: str) -> None:
        entry = parsed(line, where)
        try:
            key = str(entry.row["text"])
            self._scores[key] = float(entry.row["score"])
        except (KeyError, TypeError, ValueError):
            problem = entry.problem or "no score of a text"
            raise FileProblem(f"{where}: {problem}; remove the file and begin anew") from None
        if entry.row.get("cut"):
            self._cut.add(key)


def text_key(row: Row) -> str:
    """What a rollout's prompt and completion are known by: a SHA-256 of both."""
    return hashlib.sha256(json.dumps([row["prompt"], row["completion"]]).encode()).hexdigest()
