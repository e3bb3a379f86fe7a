"""Diversity is counted over all texts."""

import pytest

from trainer.evaluation import distinct_n


def test_distinct_n_against_counting_by_hand():
    assert distinct_n(["a b a b", "a b c"], 2) == 3 / 5  # ab ba ab ab bc: three different ones of five
    assert distinct_n(["x y", "x y"], 1) == 0.5


def test_texts_without_any_n_gram_are_refused():
    with pytest.raises(ValueError, match="no text has 2 words"):
        distinct_n(["a", ""], 2)
