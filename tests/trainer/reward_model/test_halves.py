from hypothesis import given
from hypothesis import strategies as st

from trainer.reward_model.halves import halved


@given(st.lists(st.integers(0, 8), min_size=2))
def test_every_row_is_in_one_half_and_no_group_in_two(groups):
    found = halved(groups)
    assert sorted((*found.first, *found.second)) == list(range(len(groups)))
    shared = {groups[row] for row in found.first} & {groups[row] for row in found.second}
    assert bool(shared) == (found.by == "rows") == (len(set(groups)) == 1)
    assert found.first
    assert found.second
    assert abs(len(found.first) - len(found.second)) <= max(map(groups.count, groups))


def test_one_row_has_no_halves():
    assert halved(["alone"]) is None
