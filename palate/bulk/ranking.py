"""Ranks the completions of each row: best of n over whole files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict

from palate.bulk.rows import FileProblem, Row, without
from palate.bulk.scoring import content_of, patiently
from palate.client import Failed, Ranking, RewardClient, Truncation
from palate.client.types import ContentLike

RANK_FIELDS = frozenset({"order", "ranking", "scored_by"})
"""What a result is written to; what a row brings along under these names is an older result, and goes."""


def ranked_rows(
    client: RewardClient, rows: Iterable[Row], prompt: str, completions: str, truncation: Truncation
) -> Iterator[list[Row]]:
    """Each row with its ranking, one at a time.

    Raises:
        FileProblem: A row lacks a field, or has no completions.
        CallError: The server refuses, or stayed away too long.
    """
    for number, row in enumerate(rows, 1):
        question, answers = content_of(row, prompt, number), _answers(row, completions, number)
        ranking = patiently(lambda q=question, a=answers: client.rank(q, a, truncation=truncation))  # type: ignore[misc]
        yield [without(row, RANK_FIELDS) | _fields(ranking)]


def _answers(row: Row, field: str, number: int) -> list[ContentLike]:
    value = row.get(field)
    if not isinstance(value, list) or not value:
        raise FileProblem(f"row {number}: field {field!r} must be a list with at least one completion")
    return [content_of({field: answer}, field, number) for answer in value]


def _fields(ranking: Ranking) -> Row:
    """The order, best first, then per completion a score or an error."""
    results = [
        {"error": f"{result.code}: {result.message}"}
        if isinstance(result, Failed)
        else {"score": result.scored.score, "rank": result.rank}
        | ({} if result.z_score is None else {"z_score": result.z_score})
        for result in ranking.results
    ]
    return {"order": list(ranking.order), "ranking": results, "scored_by": asdict(ranking.provenance)}
