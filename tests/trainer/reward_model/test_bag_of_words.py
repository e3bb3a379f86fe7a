from random import Random

import numpy as np
import pytest

from trainer.data.comparisons import Comparison
from trainer.reward_model.bag_of_words import BagOfWords, words_of


def noisy_rows(count, seed, flip=0.1):
    """Comparisons in which "fine" beats "poor" whatever stands around it, with a share of wrong labels."""
    rng = Random(seed)
    rows = []
    for _ in range(count):
        good, bad = (" ".join([rng.choice("klmnop"), word, rng.choice("qrstuv")]) for word in ("fine", "poor"))
        first_is_good = rng.random() < 0.5
        label = "a" if first_is_good != (rng.random() < flip) else "b"
        rows.append(Comparison("", *((good, bad) if first_is_good else (bad, good)), label))
    return rows


def weight(model, word):
    """That of one word: by how much a text of it alone is above one without any."""
    (difference,) = model.differences([Comparison("", word, "", "a")])
    return difference


def test_words_are_lower_case_and_signs_stand_alone():
    assert words_of("It's FINE, really!") == ["it", "'", "s", "fine", ",", "really", "!"]


def test_it_learns_which_word_wins_from_noisy_labels():
    model = BagOfWords(noisy_rows(300, 0))
    differences = model.differences(noisy_rows(100, 1, flip=0.0))
    labels = [row.label for row in noisy_rows(100, 1, flip=0.0)]
    assert all((difference > 0) == (label == "a") for difference, label in zip(differences, labels, strict=True))
    assert weight(model, "fine") > 1.0 > -1.0 > weight(model, "poor")
    assert weight(model, "never seen") == 0.0


def test_the_weights_are_at_the_minimum():
    """The gradient of the penalised loss, computed one comparison at a time, is 0."""
    rows = [*noisy_rows(40, 2), Comparison("", "fine fine k", "poor", "tie")]
    model = BagOfWords(rows, l2=0.5, min_count=1)
    words = sorted({word for row in rows for text in (row.a, row.b) for word in words_of(text)})
    for word in words:
        gradient = 0.5 * weight(model, word)
        for row, z in zip(rows, model.differences(rows), strict=True):
            count = words_of(row.a).count(word) - words_of(row.b).count(word)
            gradient += count * (1 / (1 + np.exp(-z)) - row.preference)
        assert gradient == pytest.approx(0.0, abs=1e-3)


def test_rare_words_and_texts_without_known_words_weigh_nothing():
    model = BagOfWords(noisy_rows(50, 3))
    assert model.differences([Comparison("", "unseen", "unknown", "a")]) == [0.0]
