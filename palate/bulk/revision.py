"""All scores of one output are of one revision: where another model answers, the job stops."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from palate.bulk.rows import Row
from palate.client import Provenance


class ModelChanged(Exception):
    """Another revision than that of earlier rows; the message says both, and what to do."""


class OneRevision:
    """The revision that all rows of an output have, known from the first one.

    Args:
        done: Rows of an earlier run.
        partial: Where they are kept.
        pinned: The revision that is insisted on; empty = that of the first row.

    Raises:
        ModelChanged: The rows are of several revisions, or not of the pinned one.
    """

    def __init__(self, done: Iterable[Row], partial: Path, pinned: str) -> None:
        self._partial = partial
        self._revision = ""
        for row in done:
            self._hold(row.get("scored_by", {}).get("revision", ""), "later rows there are by")
        self._hold(pinned, "--revision says")

    def check(self, provenance: Provenance) -> None:
        """Holds a reply against the rows before it.

        Raises:
            ModelChanged: It is of another revision.
        """
        self._hold(provenance.revision, "the server answers with")

    def _hold(self, revision: str, found: str) -> None:
        self._revision = self._revision or revision
        if revision and revision != self._revision:
            raise ModelChanged(
                f"the rows in {self._partial} are scored by revision {self._revision}, {found} revision {revision}; "
                f"scores of two models do not mix. To go on, serve the former again and give the same command; to "
                f"score all rows with the latter, remove {self._partial} first. --revision pins the one that is meant"
            )
