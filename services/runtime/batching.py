"""Which waiting items make the next batch: the most urgent one, and those whose length suits it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Candidate(Protocol):
    """What a batch is made of."""

    @property
    def size(self) -> int:
        """Tokens."""

    @property
    def group(self) -> Hashable:
        """A batch holds one group only."""

    @property
    def deadline(self) -> float:
        """When the batch must have ended."""


T = TypeVar("T", bound=Candidate)


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """What a batch may hold.

    Attributes:
        max_items: Rows.
        max_tokens: Padded tokens, rows times the longest row; a single row may be longer.
        padding_slack: How much more than its own length an item may add in padded tokens, as a share of its length.
        overhead_tokens: What a batch of its own costs beside its tokens, in tokens; as much padding is worth taking.
    """

    max_items: int
    max_tokens: int
    padding_slack: float = 0.25
    overhead_tokens: int = 16


class Growing(Generic[T]):
    """A batch that takes what suits it.

    Args:
        head: Is in it whatever it costs.
        limits: What it may hold.
        end: When a batch of one group and so many padded tokens ends; past nobody's deadline in the batch.
    """

    def __init__(self, head: T, limits: BatchLimits, end: Callable[[Hashable, int], float]) -> None:
        self.items = [head]
        self._longest = head.size
        self._deadline = head.deadline
        self._limits = limits
        self._end = end

    def take(self, item: T) -> bool:
        """Takes `item` if padding stays cheaper than a batch of its own, and nobody's deadline is passed."""
        if item.group != self.items[0].group or len(self.items) == self._limits.max_items:
            return False
        longest = max(self._longest, item.size)
        padded = (len(self.items) + 1) * longest
        added = padded - len(self.items) * self._longest
        worth = item.size * (1 + self._limits.padding_slack) + self._limits.overhead_tokens
        deadline = min(self._deadline, item.deadline)
        if padded > self._limits.max_tokens or added > worth or self._end(item.group, padded) > deadline:
            return False
        self.items.append(item)
        self._longest, self._deadline = longest, deadline
        return True


def choose_batch(
    tiers: Iterable[Sequence[T]],
    limits_of: Callable[[Hashable], BatchLimits],
    end: Callable[[Hashable, int], float] = lambda group, padded: 0.0,
) -> list[T]:
    """The next batch; empty where nothing waits.

    The first item of the first tier is always in it, so nothing waits longer than the items before it take. The others
    are those closest to it in length. A tier's items come in only where nothing of the tiers before it stays out: they
    fill what is left, and delay nobody who goes before them.

    Args:
        tiers: What waits, tier by tier, most urgent first within each.
        limits_of: What a batch of a group may hold.
        end: When a batch of one group and so many padded tokens ends.
    """
    growing: Growing[T] | None = None
    for tier in tiers:
        rest = list(tier)
        if growing is None and rest:
            head = rest.pop(0)
            growing = Growing(head, limits_of(head.group), end)
        if growing is not None and not _fill(growing, rest):
            break
    return [] if growing is None else growing.items


def _fill(growing: Growing[T], items: Sequence[T]) -> bool:
    """Takes what suits, the closest to the head in length first; whether nothing stayed out."""
    length = growing.items[0].size
    taken = [growing.take(item) for item in sorted(items, key=lambda item: abs(item.size - length))]
    return all(taken)


def padded_tokens(sizes: Sequence[int]) -> int:
    """Rows times the longest."""
    return len(sizes) * max(sizes)
