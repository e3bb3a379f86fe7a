"""What the scheduler moves: items with a size, who waits for them, and what becomes of them."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, Protocol, TypeAlias, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Work(Generic[Item]):
    """An item to compute.

    Attributes:
        item: What the engine gets.
        size: Its tokens.
        group: What computes it; a batch holds one group only. Whatever changes the result beside the item is in it.
        key: Equal keys of one group are the same item.
    """

    item: Item
    size: int
    group: Hashable
    key: Hashable


@dataclass(frozen=True, slots=True)
class Terms:
    """How urgent work is, and for whom it is.

    Attributes:
        priority: Higher goes first.
        deadline: Moment after which it is worth nothing; the scheduler's clock.
        caller: Who shares the engine fairly with whom.
    """

    priority: int
    deadline: float
    caller: str = ""


@dataclass(frozen=True, slots=True)
class Done(Generic[Result]):
    """An item's result.

    Attributes:
        value: What the engine gave.
        queue_seconds: From admission to the begin of its batch.
        compute_seconds: How long its batch took; 0 where the result was known.
        batch: Number of its batch, so that time shared with others is counted once; 0 where the result was known.
    """

    value: Result
    queue_seconds: float
    compute_seconds: float
    batch: int


class FailureKind(StrEnum):
    """Why an item has no result."""

    EXPIRED = "expired"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ItemFailure:
    """An item that has no result.

    Attributes:
        kind: Why.
        message: What to do about it; holds nothing of the item.
        queue_seconds: How long it waited.
    """

    kind: FailureKind
    message: str
    queue_seconds: float


Outcome: TypeAlias = Done[Result] | ItemFailure


class Reuse(StrEnum):
    """Why an item need not be computed."""

    CACHED = "cached"
    DEDUPLICATED = "deduplicated"


class Observer(Protocol):
    """Receives what happens, for metrics."""

    def queue_changed(self, items: int, tokens: int) -> None:
        """What waits now."""

    def running_changed(self, tokens: int) -> None:
        """What the engine computes now."""

    def batch_done(self, rows: int, tokens: int, padded_tokens: int, seconds: float) -> None:
        """The engine ran a batch."""

    def item_started(self, queue_seconds: float) -> None:
        """An item left the queue for the engine."""

    def items_dropped(self, reason: str, count: int) -> None:
        """Items left the queue without being computed: "cancelled" or "expired"."""

    def item_reused(self, how: Reuse) -> None:
        """An item was admitted that shares a known result, or the computation of an equal one."""


@dataclass(slots=True, eq=False)
class Entry(Generic[Item, Result]):
    """One caller's wait for an item; `answer` will be its outcome, or is cancelled when it is forgotten.

    Attributes:
        job: Computes it; None where the result was known.
    """

    terms: Terms
    admitted: float
    answer: asyncio.Future[Outcome[Result]] = field(repr=False)
    job: Job[Item, Result] | None = field(default=None, repr=False)


@dataclass(slots=True, eq=False)
class Job(Generic[Item, Result]):
    """One computation and everybody who waits for it; as urgent as the most urgent of them.

    Attributes:
        number: The earlier one goes first where two are equally urgent.
        terms: Of the most urgent entry.
        latest: The last entry's deadline; after it nobody wants the result.
        entries: Who waits, in the order of arrival.
        queued: It is in the queue.
        taken: The engine has it; set by the engine's thread.
        abandoned: Nobody waits any more, and nobody may join.
    """

    work: Work[Item]
    number: int
    terms: Terms
    latest: float = 0.0
    entries: dict[Entry[Item, Result], None] = field(default_factory=dict, repr=False)
    queued: bool = False
    taken: bool = False
    abandoned: bool = False

    @property
    def size(self) -> int:
        """Tokens."""
        return self.work.size

    @property
    def group(self) -> Hashable:
        """What computes it."""
        return self.work.group

    @property
    def deadline(self) -> float:
        """Of the most urgent entry."""
        return self.terms.deadline

    def rank(self) -> tuple[int, float, int]:
        """The least goes first: highest priority, then earliest deadline, then first come."""
        return (-self.terms.priority, self.terms.deadline, self.number)

    def join(self, entry: Entry[Item, Result]) -> None:
        """One more waits for it."""
        entry.job = self
        self.entries[entry] = None
        self.terms = min(self.terms, entry.terms, key=_most_urgent)
        self.latest = max(self.latest, entry.terms.deadline)

    def part(self, entries: Iterable[Entry[Item, Result]]) -> None:
        """They wait no more; without entries the terms stay as they were."""
        decisive = False
        for entry in entries:
            del self.entries[entry]
            decisive = decisive or entry.terms == self.terms or entry.terms.deadline == self.latest
        if self.entries and decisive:
            self.terms = min((other.terms for other in self.entries), key=_most_urgent)
            self.latest = max(other.terms.deadline for other in self.entries)


def _most_urgent(terms: Terms) -> tuple[int, float]:
    return (-terms.priority, terms.deadline)
