"""Which waiting items make the next batch: the most urgent one, and those whose length suits it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


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


def choose_batch(waiting: Sequence[T], sizes: Callable[[T], int], same_class: int, limits: BatchLimits) -> list[T]:
    """The next batch, out of `waiting` in the order of urgency.

    The first item is always in it, so nothing waits longer than the items before it take. The others are those closest
    to it in length, as long as padding stays cheaper than a batch of their own; less urgent classes only fill what is
    left.

    Args:
        waiting: Most urgent first; at least one.
        sizes: Tokens of an item.
        same_class: How many of `waiting` have the first item's priority.
        limits: What a batch may hold.
    """
    head = waiting[0]
    chosen, longest = [head], sizes(head)
    for group in (waiting[1:same_class], waiting[same_class:]):
        for item in sorted(group, key=lambda item: abs(sizes(item) - sizes(head))):
            if len(chosen) == limits.max_items:
                return chosen
            grown = max(longest, sizes(item))
            padded = (len(chosen) + 1) * grown
            added = padded - len(chosen) * longest
            worth = sizes(item) * (1 + limits.padding_slack) + limits.overhead_tokens
            if padded <= limits.max_tokens and added <= worth:
                chosen.append(item)
                longest = grown
    return chosen
