"""Distinct n-grams against counting by hand, and each text's part in them against the whole."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.distinct import distinct_n, distinct_shares

TEXTS = st.lists(st.lists(st.sampled_from("abc"), max_size=6).map(" ".join), min_size=1, max_size=6)


def test_distinct_n_against_counting_by_hand():
    assert distinct_n(["a b a b", "a b c"], 2) == 3 / 5  # ab ba ab ab bc: three different ones of five
    assert distinct_n(["x y", "x y"], 1) == 0.5


def test_texts_without_any_n_gram_are_refused():
    with pytest.raises(ValueError, match="no text has 2 words"):
        distinct_n(["a", ""], 2)


def test_shares_by_hand():
    assert distinct_shares(["a b c", "a b", "x", "y z"], 2) == [0.75, 0.5, 0.0, 1.0]  # ab twice; bc and yz once


@given(TEXTS)
def test_shares_weighted_by_their_n_grams_are_the_whole(texts):
    weights = [max(len(text.split()) - 1, 0) for text in texts]
    if not any(weights):
        return
    mean = sum(w * share for w, share in zip(weights, distinct_shares(texts, 2), strict=True)) / sum(weights)
    assert mean == pytest.approx(distinct_n(texts, 2))
