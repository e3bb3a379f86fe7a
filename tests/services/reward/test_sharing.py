from hypothesis import given
from hypothesis import strategies as st

from services.reward.sharing import CPU_GROUP_COST, MIN_PREFIX, Group, choose_groups, chunks_of

ids = st.lists(st.integers(0, 3), min_size=1, max_size=30).map(tuple)


@st.composite
def batches(draw: st.DrawFn) -> list[tuple[int, ...]]:
    """Rows of which many continue one of a few prompts, and some stand alone or are another's begin."""
    prompts = draw(st.lists(st.lists(st.integers(0, 3), max_size=90).map(tuple), min_size=1, max_size=3))
    return draw(st.lists(st.builds(tuple.__add__, st.sampled_from([(), *prompts]), ids), min_size=1, max_size=12))


def cost(group: Group, rows: list[tuple[int, ...]]) -> int:
    lengths = [len(rows[row]) for row in group.rows]
    if not group.prefix:
        return sum(lengths)
    return group.prefix + len(lengths) * (max(lengths) - group.prefix) + CPU_GROUP_COST


@given(batches())
def test_every_row_is_in_one_group_in_the_order_of_the_batch(rows: list[tuple[int, ...]]):
    groups = choose_groups(rows)
    assert sorted(row for group in groups for row in group.rows) == list(range(len(rows)))
    assert all(list(group.rows) == sorted(group.rows) for group in groups)
    assert sum(group.prefix == 0 for group in groups) <= 1


@given(batches())
def test_rows_of_a_group_share_its_prefix_and_go_on_after_it(rows: list[tuple[int, ...]]):
    for group in choose_groups(rows):
        if group.prefix:
            assert len(group.rows) > 1
            assert group.prefix >= MIN_PREFIX
            assert len({rows[row][: group.prefix] for row in group.rows}) == 1
            assert all(len(rows[row]) > group.prefix for row in group.rows)


@given(batches())
def test_every_group_saves_work(rows: list[tuple[int, ...]]):
    for group in choose_groups(rows):
        if group.prefix:
            assert cost(group, rows) < sum(len(rows[row]) for row in group.rows)


def divisions(rows: list[int]):
    """All ways to cut places into runs."""
    if not rows:
        yield []
        return
    for end in range(1, len(rows) + 1):
        for rest in divisions(rows[end:]):
            yield [rows[:end], *rest]


def cheapest(rows: list[tuple[int, ...]]) -> int:
    """By trying every division of the sorted rows into runs."""

    def part_cost(part: list[int]) -> int:
        lengths = [len(rows[row]) for row in part]
        alike = 0
        while alike < min(lengths) - 1 and len({rows[row][alike] for row in part}) == 1:
            alike += 1
        if len(part) == 1 or alike < MIN_PREFIX:
            return sum(lengths)
        return min(sum(lengths), cost(Group(tuple(part), alike), rows))

    return min(sum(map(part_cost, division)) for division in divisions(sorted(range(len(rows)), key=rows.__getitem__)))


@given(batches().map(lambda rows: rows[:6]))
def test_no_division_into_runs_is_cheaper(rows: list[tuple[int, ...]]):
    assert sum(cost(group, rows) for group in choose_groups(rows)) <= cheapest(rows)


def test_prompts_with_several_completions_are_told_apart():
    first, second = tuple(range(100)), tuple(range(200, 300))
    rows = [(*first, 1), (*second, 1, 2), (*first, 2), (7, 8, 9), (*second, 3), (*first, 3, 3)]
    assert choose_groups(rows) == [Group((0, 2, 5), 100), Group((1, 4), 100), Group((3,), 0)]


def test_equal_rows_and_rows_that_begin_others_keep_a_token_to_read_the_score_at():
    row = tuple(range(200))
    assert choose_groups([row, row]) == [Group((0, 1), 199)]
    assert choose_groups([(*row, 1, 2), row]) == [Group((0, 1), 199)]


def test_little_in_common_is_not_worth_a_group():
    prompt = tuple(range(MIN_PREFIX))
    assert choose_groups([(*prompt, 1), (*prompt, 2)]) == [Group((0, 1), 0)]
    assert choose_groups([tuple(range(CPU_GROUP_COST + MIN_PREFIX)), (5,)])[0].prefix == 0


@given(batches(), st.integers(1, 400))
def test_chunks_hold_every_row_once_and_fit(rows: list[tuple[int, ...]], max_tokens: int):
    lengths = [len(row) for row in rows]
    for group in choose_groups(rows):
        if group.prefix:
            chunks = chunks_of(group, lengths, max_tokens)
            assert sorted(row for chunk in chunks for row in chunk) == list(group.rows)
            for chunk in chunks:
                held = group.prefix + len(chunk) * max(lengths[row] for row in chunk)
                assert held <= max_tokens or len(chunk) == 1


def test_where_a_pass_costs_much_only_large_groups_share():
    prompt = tuple(range(512))
    few, many = ([(*prompt, place) for place in range(count)] for count in (8, 16))
    assert choose_groups(few, 4096) == [Group(tuple(range(8)), 0)]
    assert choose_groups(many, 4096) == [Group(tuple(range(16)), 512)]
