"""Rows as a reward service takes them: checked one by one, measured, and put together into requests that it accepts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from palate.bulk.rows import Entry, Row
from palate.client import Failed, ItemErrorCode, Message
from palate.client.content import content_message
from palate.client.types import ContentLike
from palate.v1 import reward_service_pb2 as reward

ENVELOPE_BYTES = 4096
"""What a request holds besides its items: options with names and digests."""


class Unusable(Exception):
    """A row cannot be sent; the message says why."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Which fields of a row hold what; a list of {role, content} is read as a conversation."""

    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may hold."""

    items: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Pair:
    """What is scored, and its size in a request."""

    prompt: ContentLike
    completion: ContentLike
    size_bytes: int


Prepared: TypeAlias = tuple[Entry, Pair | Failed]
"""A row, and what to send for it or why nothing can be sent."""


def pair_of(entry: Entry, columns: Columns, limits: Limits) -> Pair | Failed:
    """What to score of a row, or why it cannot be sent."""
    try:
        row = row_of(entry)
        prompt, completion = content_of(row, columns.prompt), content_of(row, columns.completion)
        item = reward.ScoreItem(
            prompt=content_message(prompt, columns.prompt), completion=content_message(completion, columns.completion)
        )
        return Pair(prompt, completion, checked_size(reward.ScoreRequest(items=[item]), limits))
    except Unusable as error:
        return failed(entry, error)


def failed(entry: Entry, error: Exception) -> Failed:
    """Why a row has no score, with its place in the file; the same row would fail again."""
    return Failed(ItemErrorCode.INVALID, f"{entry.where}: {error}", retryable=False, retry_after=None)


def row_of(entry: Entry) -> Row:
    """The row.

    Raises:
        Unusable: There is none.
    """
    if entry.problem:
        raise Unusable(entry.problem)
    return entry.row


def content_of(row: Row, name: str) -> ContentLike:
    """A row's text or conversation.

    Raises:
        Unusable: The field is missing or null, is neither, or holds what is no Unicode text.
    """
    if name in row and row[name] is None:
        raise Unusable(f"field {name!r} is null; give a text, or a list of {{role, content}}")
    if name not in row:
        raise Unusable(f"field {name!r} is missing; the row has {', '.join(sorted(row)) or 'no fields'}")
    return content(row[name], f"field {name!r}")


def content(value: Any, what: str) -> ContentLike:
    """A text or a conversation.

    Raises:
        Unusable: `what` is neither, or is no Unicode text.
    """
    if isinstance(value, str):
        return _text(value, what)
    if isinstance(value, list) and value and all(_is_message(message) for message in value):
        return [Message(_text(m["role"], what), _text(m["content"], what)) for m in value]
    raise Unusable(f"{what} is no text and no conversation, which is a list of {{role, content}}, both text")


def checked_size(request: reward.ScoreRequest | reward.RankRequest, limits: Limits) -> int:
    """Bytes of a request with one row.

    Raises:
        Unusable: It is more than a request may hold.
    """
    size: int = request.ByteSize()
    if size > limits.bytes:
        raise Unusable(
            f"the row has {size} bytes, a request holds {limits.bytes} of them; shorten it, or raise "
            "--max-message-bytes here and on the server"
        )
    return size


def in_batches(rows: Iterable[Prepared], limits: Limits) -> Iterator[list[Prepared]]:
    """The rows in their order, as many together as a request may hold; a row that is not sent takes no bytes."""
    batch: list[Prepared] = []
    size = 0
    for row in rows:
        more = 0 if isinstance(row[1], Failed) else row[1].size_bytes
        if batch and (len(batch) == limits.items or size + more > limits.bytes):
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += more
    if batch:
        yield batch


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(name), str) for name in ("role", "content"))


def _text(value: str, what: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise Unusable(
            f"{what} is no Unicode text: character {error.start} is a lone surrogate; replace it or leave it out"
        ) from None
    return value
