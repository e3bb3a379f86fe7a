from hypothesis import given
from hypothesis import strategies as st

from services.runtime.batching import BatchLimits, choose_batch

SIZES = st.lists(st.integers(1, 100), min_size=1, max_size=40)


def choose(sizes: list[int], limits: BatchLimits, same_class: int | None = None) -> list[int]:
    """Indices of the chosen items."""
    return choose_batch(range(len(sizes)), sizes.__getitem__, same_class or len(sizes), limits)


@given(SIZES, st.integers(1, 8), st.integers(50, 1000))
def test_a_batch_keeps_its_limits_and_holds_the_most_urgent_item(sizes: list[int], max_items: int, max_tokens: int):
    chosen = choose(sizes, BatchLimits(max_items, max_tokens))
    assert chosen[0] == 0
    assert len(set(chosen)) == len(chosen) <= max_items
    assert len(chosen) == 1 or len(chosen) * max(sizes[index] for index in chosen) <= max_tokens


@given(SIZES, st.integers(1, 8))
def test_padding_costs_less_than_batches_of_their_own(sizes: list[int], max_items: int):
    limits = BatchLimits(max_items, 10_000)
    chosen = [sizes[index] for index in choose(sizes, limits)]
    padded = len(chosen) * max(chosen)
    apart = chosen[0] + sum(size * 1.25 + limits.overhead_tokens for size in chosen[1:])
    assert padded <= apart


@given(st.integers(1, 100), st.integers(1, 30))
def test_equal_lengths_fill_the_batch_in_order_of_urgency(size: int, count: int):
    assert choose([size] * count, BatchLimits(8, 8 * size)) == list(range(min(8, count)))


def test_unsuitable_lengths_wait_for_their_own_batch():
    assert choose([10, 500, 11, 480, 9], BatchLimits(8, 10_000)) == [0, 2, 4]


def test_less_urgent_items_only_fill_what_is_left():
    assert choose([10, 14, 10, 10], BatchLimits(3, 1000), same_class=2) == [0, 1, 2]
    assert choose([10, 14, 10, 10], BatchLimits(2, 1000), same_class=2) == [0, 1]
