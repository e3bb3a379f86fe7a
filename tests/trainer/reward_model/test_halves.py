import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.reward_model.halves import halved


@given(st.lists(st.integers(0, 8), min_size=2))
def test_every_row_is_in_one_half_and_no_group_in_two(groups):
    found = halved(groups)
    assert sorted((*found.first, *found.second)) == list(range(len(groups)))
    shared = {groups[row] for row in found.first} & {groups[row] for row in found.second}
    most = max(map(groups.count, groups))
    assert bool(shared) == (found.by == "rows") == (len(set(groups)) == 1 or (len(groups) - most) * 10 < len(groups))
    assert min(len(found.first), len(found.second)) * 10 >= len(groups)
    assert abs(len(found.first) - len(found.second)) <= most


@pytest.mark.parametrize(("rest", "by"), [(10, "rows"), (99, "rows"), (100, "groups")])
def test_a_group_that_holds_nearly_all_is_halved_itself(rest, by):
    found = halved(["large"] * (1000 - rest) + [f"small {row}" for row in range(rest)])
    assert found.by == by
    assert min(len(found.first), len(found.second)) == (500 if by == "rows" else rest)


def test_one_row_has_no_halves():
    assert halved(["alone"]) is None
