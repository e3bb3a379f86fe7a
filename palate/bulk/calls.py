"""Calls of one job: patient while the server is full or away, and all answered by one revision."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from palate.bulk.items import Pair
from palate.bulk.revision import OneRevision
from palate.client import (
    InvalidArgument,
    MessageTooLarge,
    Overloaded,
    PalateError,
    Ranking,
    RewardClient,
    ScoreReply,
    Unavailable,
)
from palate.client.types import ContentLike, ScoreOptions

Answer = TypeVar("Answer")
Asked = TypeVar("Asked")

PATIENCE_SECONDS = 300.0
"""How long a server may be away or full before the run stops; what was scored is kept."""


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


def patiently(call: Callable[[], Answer], waiting: Callable[[PalateError], None]) -> Answer:
    """`call`, repeated while the server is full or away, as long as it asked to wait, or a growing while.

    `waiting` is told once where the server is away.

    Raises:
        CallError: It refuses, or stayed away for longer than `PATIENCE_SECONDS`.
    """
    give_up, pause, told = time.monotonic() + PATIENCE_SECONDS, 0.2, False
    while True:
        try:
            return call()
        except (Overloaded, Unavailable) as error:
            wait = error.retry_after or pause
            if time.monotonic() + wait > give_up:
                raise
            if isinstance(error, Unavailable) and not told:
                waiting(error)
                told = True
            time.sleep(wait)
            pause = min(2 * pause, 10.0)


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
