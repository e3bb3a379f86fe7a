import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.comparisons import Comparison
from trainer.reward_model.evaluate import accuracy, evaluate, shorter_won, threshold_accuracy, wilson


def row(label, a="aaaa", b="bb"):
    return Comparison("p", a, b, label)


@pytest.mark.parametrize(
    ("successes", "count", "low", "high"),
    [
        (81, 263, 0.2552777, 0.3662054),  # Newcombe 1998, table I: .2553 to .3662
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (29, 29, 0.8830, 1.0),
    ],
)
def test_wilson_intervals_are_the_published_ones(successes, count, low, high):
    share = wilson(successes, count)
    assert share.value == successes / count
    assert (share.low, share.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


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


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.floats(-5, 5)), min_size=1))
def test_a_judge_and_its_opposite_share_all_credit(drawn):
    rows, differences = [row(label) for label, _ in drawn], [difference for _, difference in drawn]
    total = accuracy(rows, differences).value + accuracy(rows, [-d for d in differences]).value
    assert total == pytest.approx(1.0)
