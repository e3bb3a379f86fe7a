"""Ranks the completions of each row: best of n over whole files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from palate.bulk.calls import Calls, is_refusal
from palate.bulk.items import Columns, Limits, Unusable, checked_size, content, content_of, failed, row_of
from palate.bulk.rows import Entry, Row, without
from palate.bulk.scoring import error_text
from palate.client import Failed, PalateError, Ranked
from palate.client.content import content_message, content_messages
from palate.client.types import ContentLike
from palate.v1 import reward_service_pb2 as reward

RANK_FIELDS = frozenset({"order", "ranking", "scored_by", "error"})
"""What a result is written to; what a row brings along under these names is an older result, and goes."""


def ranked_rows(calls: Calls, entries: Iterable[Entry], columns: Columns, limits: Limits) -> Iterator[list[Row]]:
    """Each row with its ranking, or with the error why it has none, one at a time.

    Raises:
        FileProblem: The file breaks off.
        ModelChanged: Another revision answers than before.
        CallError: The server refuses all requests, or stayed away too long.
    """
    for entry in entries:
        yield [without(entry.row, RANK_FIELDS) | _fields(calls, entry, columns, limits)]


def _fields(calls: Calls, entry: Entry, columns: Columns, limits: Limits) -> Row:
    try:
        row = row_of(entry)
        prompt, values = content_of(row, columns.prompt), _values(row, columns.completion)
        return _ranked(calls, prompt, [_candidate(entry, value, place) for place, value in enumerate(values)], limits)
    except PalateError as error:
        if not is_refusal(error):
            raise
        return {"error": error_text(failed(entry, error))}
    except Unusable as error:
        return {"error": error_text(failed(entry, error))}


def _ranked(calls: Calls, prompt: ContentLike, candidates: Sequence[ContentLike | Failed], limits: Limits) -> Row:
    """The order, best first, then per completion a score or an error; one that cannot be sent leaves the rest alone."""
    results = [{"error": error_text(each)} if isinstance(each, Failed) else {} for each in candidates]
    sent = {place: each for place, each in enumerate(candidates) if not isinstance(each, Failed)}
    if not sent:
        return {"order": [], "ranking": results}
    places, completions = list(sent), list(sent.values())
    _check_room(prompt, completions, limits)
    ranking = calls.rank(prompt, completions)
    for place, result in zip(places, ranking.results, strict=True):
        results[place] = _result(result)
    order = [places[index] for index in ranking.order]
    return {"order": order, "ranking": results, "scored_by": asdict(ranking.provenance)}


def _values(row: Row, field: str) -> list[Any]:
    value = row.get(field)
    if not isinstance(value, list) or not value:
        raise Unusable(f"field {field!r} must be a list with at least one completion")
    return value


def _candidate(entry: Entry, value: Any, place: int) -> ContentLike | Failed:
    try:
        return content(value, f"completion {place}")
    except Unusable as error:
        return failed(entry, error)


def _check_room(prompt: ContentLike, completions: Sequence[ContentLike], limits: Limits) -> None:
    if len(completions) > limits.items:
        raise Unusable(f"{len(completions)} completions; this server ranks at most {limits.items}: leave some out")
    contents = content_messages(completions, "completions")
    checked_size(reward.RankRequest(prompt=content_message(prompt, "prompt"), completions=contents), limits)


def _result(result: Ranked | Failed) -> Row:
    if isinstance(result, Failed):
        return {"error": error_text(result)}
    z_score = {} if result.z_score is None else {"z_score": result.z_score}
    return {"score": result.scored.score, "rank": result.rank} | z_score
