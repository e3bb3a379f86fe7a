"""Calls of one job: patient while the server is full or away, and all answered by one revision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from palate.bulk.items import Pair
from palate.bulk.revision import OneRevision
from palate.client import (
    InvalidArgument,
    MessageTooLarge,
    PalateError,
    Ranking,
    RewardClient,
    ScoreReply,
)
from palate.client.types import ContentLike, ScoreOptions
from palate.waiting import patiently

Answer = TypeVar("Answer")
Asked = TypeVar("Asked")


class Calls:
    """Asks a reward service.

    `options` say how to score. `waiting` is told once for every time that the server is away. Every method raises
    `ModelChanged` where another revision answers than before, and `CallError` where the server refuses or stayed away
    for longer than `PATIENCE_SECONDS`.
    """

    def __init__(
        self,
        client: RewardClient,
        options: ScoreOptions,
        revision: OneRevision,
        waiting: Callable[[PalateError], None],
    ) -> None:
        self._client = client
        self._options = options
        self._revision = revision
        self._waiting = waiting

    def score(self, pairs: Sequence[Pair]) -> ScoreReply:
        """Scores all pairs in one request."""
        prompts, completions = [pair.prompt for pair in pairs], [pair.completion for pair in pairs]
        reply = patiently(lambda: self._client.score(prompts, completions, **self._options), self._waiting)
        self._revision.check(reply.provenance)
        return reply

    def rank(self, prompt: ContentLike, completions: Sequence[ContentLike]) -> Ranking:
        """Ranks completions of a prompt."""
        ranking = patiently(lambda: self._client.rank(prompt, completions, **self._options), self._waiting)
        self._revision.check(ranking.provenance)
        return ranking


def is_refusal(error: PalateError) -> bool:
    """Whether the request is at fault, so that another one may pass: it is wrong, or too large for this server."""
    return isinstance(error, (InvalidArgument, MessageTooLarge, ValueError))


def halved(
    call: Callable[[Sequence[Asked]], list[Answer]], items: Sequence[Asked], refused: Callable[[PalateError], Answer]
) -> list[Answer]:
    """Answers for all items; a request that is refused is halved until the item that is at fault stands alone.

    Args:
        call: Answers for some items, in one request.
        items: What to ask.
        refused: The answer for an item whose own request is refused.
    """
    if not items:
        return []
    try:
        return call(items)
    except PalateError as error:
        if not is_refusal(error):
            raise
        if len(items) == 1:
            return [refused(error)]
        middle = len(items) // 2
        return halved(call, items[:middle], refused) + halved(call, items[middle:], refused)
