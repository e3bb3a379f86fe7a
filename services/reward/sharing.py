"""Which rows of a batch begin alike, so that what they share is computed once."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

MIN_PREFIX = 16
"""Fewest tokens worth sharing; below, a group is not even considered."""

CPU_GROUP_COST = 64
"""What a group costs beside its tokens, in tokens: one more forward pass, and keys and values that are copied.

On a GPU it is more, and measured: thousands of tokens for small models, which wait for their kernels to be started.
"""


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that are computed together.

    Attributes:
        rows: Their places in the batch, in the batch's order.
        prefix: How many first tokens they share and that are computed once; 0 = they share nothing.
    """

    rows: tuple[int, ...]
    prefix: int


def choose_groups(rows: Sequence[tuple[int, ...]], group_cost: int = CPU_GROUP_COST) -> list[Group]:
    """Divides a batch; every row is in exactly one group.

    Minimises the computed tokens: a row by itself costs its length, a group its prefix once, its longest rest for every
    row (rests are padded), and `group_cost`. Rows with a common prefix stand together once the batch is sorted, so
    groups are sought among its runs, and their cheapest division is found by going through it once for every row.
    Leaving out a row in the middle of a run, because it is much longer, is not considered.

    Args:
        rows: Token ids; at least one row, at least one id each.
        group_cost: What a group costs beside its tokens, in tokens.

    Returns:
        Groups with a prefix, each of two rows or more that go on after it, then one of all rows that share nothing.
    """
    order = sorted(range(len(rows)), key=rows.__getitem__)
    runs = _cheapest_runs([rows[place] for place in order], group_cost)
    shared = [Group(tuple(sorted(order[begin:end])), prefix) for begin, end, prefix in runs if prefix]
    alone = tuple(sorted(order[begin] for begin, _, prefix in runs if not prefix))
    return [*shared, *([Group(alone, 0)] if alone else [])]


def chunks_of(group: Group, lengths: Sequence[int], max_tokens: int) -> list[tuple[int, ...]]:
    """Cuts a group into pieces of like length whose tokens, the shared ones repeated, fit beside the prefix.

    Args:
        group: One with a prefix.
        lengths: Tokens of every row of the batch.
        max_tokens: Tokens that may be held at once; a single row may be longer.
    """
    rows = sorted(group.rows, key=lambda row: -lengths[row])
    chunks: list[tuple[int, ...]] = []
    while rows:
        fitting = max(1, (max_tokens - group.prefix) // lengths[rows[0]])
        chunks.append(tuple(rows[:fitting]))
        rows = rows[fitting:]
    return chunks


def _cheapest_runs(rows: Sequence[tuple[int, ...]], group_cost: int) -> list[tuple[int, int, int]]:
    """(begin, end, prefix) of the runs of sorted `rows` that cost least; runs of one row have no prefix."""
    shared = [0, *(_common(first, second) for first, second in pairwise(rows))]
    best: list[tuple[int, int, int]] = [(0, 0, 0)]  # (cost of the first n rows, begin of the last run, its prefix)
    for end in range(1, len(rows) + 1):
        longest = prefix = len(rows[end - 1])
        choice = (best[end - 1][0] + longest, end - 1, 0)
        for begin in range(end - 2, -1, -1):
            longest = max(longest, len(rows[begin]))
            # Every row keeps a token of its own: its score is read there.
            prefix = min(prefix, shared[begin + 1], len(rows[begin]) - 1, len(rows[end - 1]) - 1)
            if prefix < MIN_PREFIX:
                break
            cost = best[begin][0] + prefix + (end - begin) * (longest - prefix) + group_cost
            choice = min(choice, (cost, begin, prefix), key=lambda option: option[0])
        best.append(choice)
    return _walk_back(best)


def _walk_back(best: Sequence[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    runs, end = [], len(best) - 1
    while end > 0:
        _, begin, prefix = best[end]
        runs.append((begin, end, prefix))
        end = begin
    return runs[::-1]


def _common(first: tuple[int, ...], second: tuple[int, ...]) -> int:
    """How many first ids are the same; compares slices, which is much faster than ids one by one."""
    shorter = min(len(first), len(second))
    return bisect_left(range(shorter), True, key=lambda last: first[: last + 1] != second[: last + 1])
