from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.wilson import wilson_interval
from trainer.data.comparisons import Comparison
from trainer.reward_model.evaluate import Share, accuracy, evaluate, shorter_won, threshold_accuracy, wilson
from trainer.reward_model.result import told_groups


def row(label, a="aaaa", b="bb"):
    return Comparison("p", a, b, label)


def test_a_share_may_count_halves():
    assert wilson(4.5, 9) == Share(0.5, *wilson_interval(4.5, 9), 9)


def test_nothing_counted_is_no_share():
    assert wilson(0, 0) is None
    assert accuracy([row("tie")], [1.0]) is None


def test_accuracy_leaves_ties_out_and_halves_draws():
    rows = [row("a"), row("b"), row("a"), row("tie")]
    share = accuracy(rows, [1.0, 1.0, 0.0, 5.0])
    assert (share.value, share.count) == (0.5, 3)


def test_every_accuracy_stands_beside_the_length_baseline():
    rows = [row("a"), row("a"), row("b"), row("tie")]  # a is longer
    found = evaluate(rows, [2.0, 2.0, 1.0, 0.0], [1.0, 1.0, 2.0, 0.0], [-1.0, 1.0, -1.0, 0.0])
    assert found.reward_model.value == 1.0
    assert found.length_only.value == pytest.approx(2 / 3)
    assert found.bag_of_words.value == pytest.approx(2 / 3)
    assert (found.shorter_won.value, found.shorter_won.count) == (1.0, 1)
    assert shorter_won(rows) == [2]


def test_equally_long_completions_are_a_draw_for_the_length_baseline():
    same = row("a", "xx", "yy")
    found = evaluate([same, same], [1.0, 1.0], [0.0, 0.0], [1.0, 1.0])
    assert found.length_only.value == 0.5
    assert found.shorter_won is None


def test_a_threshold_judges_single_texts_and_is_fitted_on_the_other_half():
    rows = [row("a"), row("b"), row("a"), row("b")]
    assert threshold_accuracy(rows, [3.0, 1.0, 3.0, 1.0], [1.0, 3.0, 1.0, 3.0]).value == 1.0
    # Pairwise perfect, but offsets per pair hide it from any one threshold.
    shifted = threshold_accuracy(rows, [11.0, 0.0, -9.0, 0.0], [10.0, 1.0, -10.0, 1.0])
    assert shifted.value < 1.0
    assert threshold_accuracy(rows[:1], [1.0], [0.0]) is None


def grouped(count, groups):
    """Rows of so many groups, whose prompts say which."""
    return [Comparison(f"prompt {number % groups}", f"a {number}", f"b {number}", "a") for number in range(count)]


def test_the_two_sides_of_a_pair_are_one_trial_of_a_threshold():
    rng = Random(0)
    good = [rng.gauss(1.0, 1.0) for _ in range(200)]
    found = threshold_accuracy(grouped(200, 200), good, [score - 1.0 for score in good])
    twin = wilson(200 * found.value, 200)
    assert found.count == 200
    assert (found.low, found.high) == (pytest.approx(twin.low), pytest.approx(twin.high))


def test_a_threshold_is_fitted_on_other_groups():
    """Two groups that lie far apart: each one's middle is right about one side of the other's pairs alone."""
    scores = [100.0 if number // 2 % 2 else 0.0 for number in range(40)]
    good, bad = [score + 1.0 for score in scores], [score - 1.0 for score in scores]
    own = [Comparison(f"prompt {score}", f"a {place}", f"b {place}", "a") for place, score in enumerate(scores)]
    assert threshold_accuracy(own, good, bad).value == 0.5
    assert threshold_accuracy(grouped(40, 1), [1.0] * 40, [-1.0] * 40).value == 1.0  # one group: halves are of its rows


def test_groups_that_differ_make_the_interval_over_groups_the_wider_one():
    """In half of the groups the model is always right, in half never."""
    rows = grouped(400, 8)
    differences = [1.0 if number % 8 < 4 else -1.0 for number in range(400)]
    share = accuracy(rows, differences)
    low, high = share.over_groups
    assert low < share.low - 0.1
    assert high > share.high + 0.1
    assert accuracy(rows, differences) == share


@pytest.mark.parametrize("groups", [1, 4, 400])
def test_few_groups_and_groups_of_one_pair_have_no_interval_over_groups(groups):
    assert accuracy(grouped(400, groups), [1.0, 1.0, -1.0, 1.0] * 100).over_groups is None


def test_draws_that_are_all_alike_are_no_interval():
    assert accuracy(grouped(400, 8), [1.0] * 400).over_groups is None
    assert accuracy(grouped(400, 8), [-1.0, *[1.0] * 399]).over_groups is not None


@pytest.mark.parametrize(
    ("groups", "told"),
    [
        (1, "these are of one group, and other groups may differ by more"),
        (4, "these are of 4 groups, and other groups may differ by more"),
        (8, "these are of 8 groups, and other groups may differ by more (over groups: a bootstrap of whole ones)"),
        (40, ""),
    ],
)
def test_what_intervals_do_not_say_is_told_where_it_matters(groups, told):
    found = evaluate(grouped(40, groups), [1.0] * 40, [0.0] * 40, [1.0] * 40)
    assert found.groups == groups
    assert told_groups(found) == (told and f"intervals are over pairs; {told}")


def test_groups_are_those_of_what_is_counted():
    """Ties of other prompts are judged by nobody, so they do not hide that the rest are of few groups."""
    ties = [Comparison(f"tie {number}", "a", "b", "tie") for number in range(40)]
    found = evaluate([*grouped(40, 8), *ties], [1.0] * 80, [0.0] * 80, [1.0] * 80)
    assert (found.reward_model.count, found.groups, found.clustered) == (40, 8, True)
    assert "these are of 8 groups" in told_groups(found)


def test_groups_that_hang_together_by_a_row_outside_a_subset_are_one_there_too():
    """Five groups of pairs where the shorter one won, two of which share a prompt with a pair where it did not."""
    short = [
        Comparison(f"prompt {number % 5}", f"a {number}", "b", "b", group=f"group {number % 5}") for number in range(40)
    ]
    link = [Comparison("prompt 0", "a longer one", "b", "a", group="group 1")]
    alone, linked = (
        evaluate(rows, [1.0, *[0.0] * (len(rows) - 1)], [0.5] * len(rows), [1.0] * len(rows))
        for rows in (short, short + link)
    )
    assert (alone.groups, linked.groups) == (5, 4)
    assert alone.shorter_won.count == linked.shorter_won.count == 40
    assert alone.shorter_won.over_groups is not None
    assert linked.shorter_won.over_groups is None  # of fewer than five groups


@pytest.mark.parametrize(("rest", "split"), [(1, "rows"), (20, "groups")])
def test_which_halves_a_threshold_was_fitted_on_is_told(rest, split):
    rows = [*grouped(100 - rest, 1), *(Comparison(f"other {n}", f"a {n}", f"b {n}", "a") for n in range(rest))]
    assert evaluate(rows, [1.0] * 100, [0.0] * 100, [1.0] * 100).threshold_split == split


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.floats(-5, 5)), min_size=1))
def test_a_judge_and_its_opposite_share_all_credit(drawn):
    rows, differences = [row(label) for label, _ in drawn], [difference for _, difference in drawn]
    total = accuracy(rows, differences).value + accuracy(rows, [-d for d in differences]).value
    assert total == pytest.approx(1.0)
