import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.comparisons import SWAPPED, Comparison
from trainer.data.votes import Vote, count_votes, pairs_of

LABELS = st.sampled_from(["a", "b", "tie"])


def test_comparisons_of_the_same_texts_are_one_pair_whichever_the_sides():
    rows = [
        Comparison("p", "x", "y", "a", "ann", "g", 1.0),
        Comparison("q", "x", "y", "a", "ann"),
        Comparison("p", "y", "x", "a", "bob", "g"),
        Comparison("p", "y", "x", "tie", "", "g", 2.0),
    ]
    first, second = pairs_of(rows)
    assert first.votes == (Vote("ann", "a"), Vote("bob", "b"), Vote("", "tie"))
    assert (first.a, first.b, first.group, first.margin, first.share) == ("x", "y", "g", 1.5, 0.5)
    assert (second.prompt, second.votes, second.margin) == ("q", (Vote("ann", "a"),), None)
    assert first.judged() == Comparison("p", "x", "y", "tie", "", "g", 1.5)


@given(st.lists(st.tuples(st.integers(0, 3), LABELS, st.booleans()), min_size=1))
def test_no_vote_is_lost_and_sides_do_not_matter(drawn):
    rows = [Comparison("p", f"a{n}", f"b{n}", label, "ann") for n, label, _ in drawn]
    turned = [
        Comparison("p", row.b, row.a, SWAPPED[row.label], "ann") if turn else row
        for row, (_, _, turn) in zip(rows, drawn, strict=True)
    ]
    plain, mixed = pairs_of(rows), pairs_of(turned)
    assert sum(len(pair.votes) for pair in plain) == len(rows)
    for one, other in zip(plain, mixed, strict=True):
        assert one.share == pytest.approx(other.share if one.a == other.a else 1 - other.share)


def test_votes_are_counted():
    rows = [
        Comparison("p", "x", f"y{n}", label, who)
        for n, label, who in [
            (0, "a", "ann"),
            (0, "b", "bob"),
            (1, "tie", ""),
            (2, "a", "ann"),
            (2, "a", "eve"),
            (2, "b", "bob"),
        ]
    ]
    counts = count_votes(pairs_of(rows))
    assert (counts.pairs, counts.votes, counts.ties, counts.undecided) == (3, 6, 1, 2)
    assert (counts.fewest, counts.most, counts.annotators, counts.unnamed) == (1, 3, 3, 1)
