from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from services.runtime.batching import BatchLimits, choose_batch, padded_tokens

SIZES = st.lists(st.integers(1, 100), min_size=1, max_size=40)


@dataclass(frozen=True)
class Item:
    index: int
    size: int
    group: str = "model"
    deadline: float = 1e9


def items(sizes: Sequence[int]) -> list[Item]:
    return [Item(index, size) for index, size in enumerate(sizes)]


def choose(sizes: list[int], limits: BatchLimits) -> list[int]:
    """Indices of the chosen items."""
    return [item.index for item in choose_batch([items(sizes)], lambda group: limits)]


@given(SIZES, st.integers(1, 8), st.integers(50, 1000))
def test_a_batch_keeps_its_limits_and_holds_the_most_urgent_item(sizes: list[int], max_items: int, max_tokens: int):
    chosen = choose(sizes, BatchLimits(max_items, max_tokens))
    assert chosen[0] == 0
    assert len(set(chosen)) == len(chosen) <= max_items
    assert len(chosen) == 1 or padded_tokens([sizes[index] for index in chosen]) <= max_tokens


@given(SIZES, st.integers(1, 8))
def test_padding_costs_less_than_batches_of_their_own(sizes: list[int], max_items: int):
    limits = BatchLimits(max_items, 10_000)
    chosen = [sizes[index] for index in choose(sizes, limits)]
    apart = chosen[0] + sum(size * (1 + limits.padding_slack) + limits.overhead_tokens for size in chosen[1:])
    assert padded_tokens(chosen) <= apart


@given(st.integers(1, 100), st.integers(1, 30))
def test_equal_lengths_fill_the_batch_in_order_of_urgency(size: int, count: int):
    assert choose([size] * count, BatchLimits(8, 8 * size)) == list(range(min(8, count)))


def test_unsuitable_lengths_wait_for_their_own_batch():
    assert choose([10, 500, 11, 480, 9], BatchLimits(8, 10_000)) == [0, 2, 4]


def test_nothing_makes_no_batch():
    assert choose_batch([[], []], lambda group: BatchLimits(4, 100)) == []


def in_tiers(*tiers: Sequence[int], max_items: int = 8) -> list[int]:
    """Sizes of the chosen items."""
    limits = BatchLimits(max_items, 1000)
    return [item.size for item in choose_batch([items(tier) for tier in tiers], lambda group: limits)]


def test_each_group_has_limits_of_its_own():
    tiers = [[Item(0, 10, "b"), Item(1, 10, "a"), Item(2, 10, "b"), Item(3, 10, "b")]]
    chosen = choose_batch(tiers, lambda group: BatchLimits(8, {"a": 100, "b": 20}[group]))
    assert [item.index for item in chosen] == [0, 2]


def test_less_urgent_items_only_fill_what_is_left():
    assert in_tiers([10, 14], [11, 11], max_items=3) == [10, 14, 11]
    assert in_tiers([10, 14], [11, 11], max_items=2) == [10, 14]
    assert in_tiers([], [10], [11]) == [10, 11]


def test_less_urgent_items_delay_nobody_who_stays_out():
    assert in_tiers([10, 500], [11, 11]) == [10]


@given(st.lists(st.tuples(st.integers(1, 100), st.sampled_from("ab"), st.integers(1, 400)), min_size=1, max_size=30))
def test_a_batch_has_one_group_and_ends_before_every_deadline_in_it(drawn: list[tuple[int, str, int]]):
    tier = [Item(index, *values) for index, values in enumerate(drawn)]
    chosen = choose_batch(
        [tier],
        lambda group: BatchLimits(8, 1000),
        lambda group, padded: padded + (10.0 if group == "a" else 0.0),
    )
    assert len({item.group for item in chosen}) == 1
    end = padded_tokens([item.size for item in chosen]) + (10.0 if chosen[0].group == "a" else 0.0)
    assert len(chosen) == 1 or end <= min(item.deadline for item in chosen)
