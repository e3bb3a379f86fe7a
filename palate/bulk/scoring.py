"""Scores rows through a reward service: every row comes out with a score or an error, never with an invented score."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import TypeAlias

from palate.bulk.calls import Calls, halved
from palate.bulk.items import Columns, Limits, Pair, in_batches, pair_of
from palate.bulk.rows import Entry, Row, without
from palate.client import Failed, ItemErrorCode, PalateError, Provenance, ScoreResult
from palate.waiting import PATIENCE_SECONDS

SCORE_FIELDS = frozenset({"score", "calibrated", "scored_by", "error"})
"""What a result is written to; what a row brings along under these names is an older result, and goes."""

Outcome: TypeAlias = tuple[ScoreResult, Provenance | None]
"""A result, and which model gave it; none did where the row was never taken."""


def scored_rows(calls: Calls, entries: Iterable[Entry], columns: Columns, limits: Limits) -> Iterator[list[Row]]:
    """Batches of rows with their results, in the order of the rows.

    Raises:
        FileProblem: The file breaks off.
        ModelChanged: Another revision answers than before.
        CallError: The server refuses all requests, or stayed away for longer than `PATIENCE_SECONDS`.
    """
    for batch in scored_entries(calls, entries, columns, limits):
        yield [without(entry.row, SCORE_FIELDS) | _fields(*outcome) for entry, outcome in batch]


def scored_entries(
    calls: Calls, entries: Iterable[Entry], columns: Columns, limits: Limits
) -> Iterator[list[tuple[Entry, Outcome]]]:
    """Batches of rows, each beside its result as the service gave it, in the order of the rows.

    Raises:
        FileProblem: The file breaks off.
        ModelChanged: Another revision answers than before.
        CallError: The server refuses all requests, or stayed away for longer than `PATIENCE_SECONDS`.
    """
    prepared = ((entry, pair_of(entry, columns, limits)) for entry in entries)
    for batch in in_batches(prepared, limits):
        outcomes = iter(_outcomes(calls, [pair for _, pair in batch if isinstance(pair, Pair)]))
        yield [(entry, (pair, None) if isinstance(pair, Failed) else next(outcomes)) for entry, pair in batch]


def error_text(failure: Failed) -> str:
    """A failure as rows hold it: its code, then what happened."""
    return f"{failure.code}: {failure.message}"


def _fields(result: ScoreResult, provenance: Provenance | None) -> Row:
    """What is added to a row: a score or an error, and which model gave it."""
    scored_by = {} if provenance is None else {"scored_by": asdict(provenance)}
    if isinstance(result, Failed):
        return {"error": error_text(result)} | scored_by
    calibrated = {} if result.calibrated is None else {"calibrated": result.calibrated}
    return {"score": result.score} | calibrated | scored_by


def _outcomes(calls: Calls, pairs: Sequence[Pair]) -> list[Outcome]:
    """Results of all pairs; those that may succeed later are tried again until patience ends."""
    outcomes, give_up = _asked(calls, pairs), time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < give_up:
        waits = {i: r.retry_after or 0.2 for i, (r, _) in enumerate(outcomes) if isinstance(r, Failed) and r.retryable}
        if not waits:
            break
        time.sleep(max(waits.values()))
        for index, outcome in zip(waits, _asked(calls, [pairs[index] for index in waits]), strict=True):
            outcomes[index] = outcome
    return outcomes


def _asked(calls: Calls, pairs: Sequence[Pair]) -> list[Outcome]:
    """Results of all pairs, refused ones among them."""

    def call(some: Sequence[Pair]) -> list[Outcome]:
        reply = calls.score(some)
        return [(result, reply.provenance) for _, result in zip(some, reply.results, strict=True)]

    def refused(error: PalateError) -> Outcome:
        return Failed(ItemErrorCode.INVALID, str(error), retryable=False, retry_after=None), None

    return halved(call, pairs, refused)
