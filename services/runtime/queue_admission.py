"""What may enter the queue: what it has room for, what a caller's share allows, and what can be done in time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from services.runtime.errors import Overloaded, TooLarge
from services.runtime.job_queue import JobQueue, Pace
from services.runtime.work import Terms

_MIN_RETRY_SECONDS, _MAX_RETRY_SECONDS = 0.05, 30.0
_UNKNOWN_RETRY_SECONDS = 1.0

_MARGIN = 1.5
"""Admitted is what would be in time if everything took so many times as long as expected."""


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """What may wait."""

    max_items: int
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Need:
    """What a request adds to the queue.

    Attributes:
        items: Entries.
        tokens: Of those that nobody has asked for yet.
    """

    items: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Outlook:
    """How fast the engine is.

    Attributes:
        now: The scheduler's clock.
        busy_seconds: Until it is done with what it computes now.
        item_seconds: What the largest item takes alone, with a margin.
        token_seconds: What a token of the request's group takes in a backlog; 0 = not known.
        pace: The same of any group.
    """

    now: float
    busy_seconds: float
    item_seconds: float
    token_seconds: float
    pace: Pace


def check_size(limits: QueueLimits, items: int, tokens: int) -> None:
    """Refuses what could never enter.

    Raises:
        TooLarge: However empty the queue is, it does not fit.
    """
    if items > limits.max_items or tokens > limits.max_tokens:
        raise TooLarge(
            f"{items} items with {tokens} tokens; the queue never holds more than {limits.max_items} items "
            f"and {limits.max_tokens} tokens: send smaller requests"
        )


def check_room(waiting: JobQueue[Any, Any], need: Need, caller: str, outlook: Outlook) -> None:
    """Refuses what does not fit now.

    Raises:
        Overloaded: The queue is full, or holds so much that the rest is kept for those who have less in it.
    """
    items, tokens = waiting.items, waiting.tokens
    excess = max(tokens.excess(caller, need.tokens), 0)
    if (more := items.excess(caller, need.items)) > 0:
        excess = max(excess, more * tokens.total // max(items.total, 1))
    elif not excess:
        return
    token_seconds = waiting.token_seconds(outlook.pace)
    raise Overloaded(
        f"{items.total} items with {tokens.total} tokens are waiting; come back later",
        retry_after=_retry_after(excess * token_seconds if token_seconds else _UNKNOWN_RETRY_SECONDS),
    )


def check_time(waiting: JobQueue[Any, Any], need: Need, terms: Terms, outlook: Outlook) -> None:
    """Refuses what would not be done in time, given what goes before it.

    What could not be done in time even if nothing went before it is not refused for load: as much of it as possible is
    done, and the rest expires.

    Raises:
        Overloaded: Something goes before it that would make it late.
    """
    left = terms.deadline - outlook.now
    own = max(need.tokens * outlook.token_seconds, outlook.item_seconds)
    ahead = outlook.busy_seconds + waiting.seconds_ahead(terms, need.tokens, outlook.pace)
    needed = own if own <= left else outlook.item_seconds
    late = _MARGIN * (ahead + needed) - left
    if ahead > 0 and needed <= left and late > 0:
        raise Overloaded(
            f"what waits would take {ahead:.2f} s and this {needed:.2f} s, more than its deadline leaves; come back "
            "later, or allow more time",
            retry_after=_retry_after(late),
        )


def _retry_after(seconds: float) -> float:
    return min(max(seconds, _MIN_RETRY_SECONDS), _MAX_RETRY_SECONDS)
