"""Scores rows through a reward service: inside its limits, patient while it is busy, and never inventing a score."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

from palate.bulk.rows import FileProblem, Row, without
from palate.client import Failed, Message, Overloaded, RewardClient, Scored, ScoreReply, ScoreResult, Unavailable
from palate.client.types import ContentLike, Provenance, Truncation

Answer = TypeVar("Answer")

PATIENCE_SECONDS = 300.0
"""How long a server may be away or full before the run stops; what was scored is kept."""


SCORE_FIELDS = frozenset({"score", "calibrated", "scored_by", "error"})
"""What a result is written to; what a row brings along under these names is an older result, and goes."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Which fields of a row hold what; a list of {role, content} is read as a conversation."""

    prompt: str = "prompt"
    completion: str = "completion"


def scored_rows(
    client: RewardClient, rows: Iterable[Row], columns: Columns, batch: int, truncation: Truncation
) -> Iterator[list[Row]]:
    """Batches of rows with their results, in the order of the rows.

    Raises:
        FileProblem: A row lacks a field.
        CallError: The server refuses the request, or stayed away for longer than `PATIENCE_SECONDS`.
    """
    numbered = enumerate(rows, 1)
    while part := list(itertools.islice(numbered, batch)):
        prompts = [content_of(row, columns.prompt, number) for number, row in part]
        completions = [content_of(row, columns.completion, number) for number, row in part]
        results, provenance = _score(client, prompts, completions, truncation)
        yield [
            without(row, SCORE_FIELDS) | result_fields(result, provenance)
            for (_, row), result in zip(part, results, strict=True)
        ]


def content_of(row: Row, field: str, number: int) -> ContentLike:
    """A row's text or conversation.

    Raises:
        FileProblem: The field is missing or is neither.
    """
    value = row.get(field)
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(m, dict) and {"role", "content"} <= set(m) for m in value) and value:
        return [Message(message["role"], message["content"]) for message in value]
    raise FileProblem(
        f"row {number}: field {field!r} is {'missing' if value is None else 'no text and no conversation'}; "
        f"the row has {', '.join(sorted(row)) or 'no fields'}"
    )


def result_fields(result: ScoreResult, provenance: Provenance) -> Row:
    """What is added to a row: a score or an error, and which model gave it."""
    if isinstance(result, Scored):
        calibrated = {} if result.calibrated is None else {"calibrated": result.calibrated}
        return {"score": result.score, **calibrated, "scored_by": asdict(provenance)}
    return {"error": f"{result.code}: {result.message}", "scored_by": asdict(provenance)}


def _score(
    client: RewardClient, prompts: Sequence[ContentLike], completions: Sequence[ContentLike], truncation: Truncation
) -> tuple[list[ScoreResult], Provenance]:
    """Results of all items; those that may succeed later are tried again until patience ends."""

    def ask(indices: Sequence[int]) -> ScoreReply:
        chosen = [prompts[i] for i in indices], [completions[i] for i in indices]
        return patiently(lambda: client.score(*chosen, truncation=truncation))

    reply = ask(range(len(prompts)))
    results, give_up = list(reply.results), time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < give_up:
        waiting = {i: r.retry_after or 0.2 for i, r in enumerate(results) if isinstance(r, Failed) and r.retryable}
        if not waiting:
            break
        time.sleep(max(waiting.values()))
        for index, result in zip(waiting, ask(list(waiting)).results, strict=True):
            results[index] = result
    return results, reply.provenance


def patiently(call: Callable[[], Answer]) -> Answer:
    """`call`, repeated while the server is full or away, as long as it asked to wait, or a growing while."""
    give_up, pause = time.monotonic() + PATIENCE_SECONDS, 0.2
    while True:
        try:
            return call()
        except (Overloaded, Unavailable) as error:
            wait = error.retry_after or pause
            if time.monotonic() + wait > give_up:
                raise
            time.sleep(wait)
            pause = min(2 * pause, 10.0)
