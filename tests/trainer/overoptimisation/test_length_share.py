import numpy as np
import pytest

from trainer.overoptimisation.length_share import Scored, length_share


def drawn(shift, gain, seed, per_token=0.1, count=4000):
    """Scores that grow with length, plus a gain that does not."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(20, 40, count) + shift
    return Scored(lengths.astype(float), per_token * lengths + gain + rng.normal(0, 0.1, count))


def test_a_gain_that_is_all_length_is_said_to_be():
    found = length_share(drawn(0, 0.0, 0), drawn(6, 0.0, 1), buckets=60)
    assert found.gain == pytest.approx(0.6, abs=0.05)
    assert found.share == pytest.approx(1.0, abs=0.05)


def test_a_gain_without_length_is_not():
    found = length_share(drawn(0, 0.0, 0), drawn(0, 0.5, 1))
    assert found.share == pytest.approx(0.0, abs=0.05)
    assert found.covered == 1.0


def test_half_and_half():
    found = length_share(drawn(0, 0.0, 0), drawn(5, 0.5, 1), buckets=60)
    assert found.share == pytest.approx(0.5, abs=0.05)
    assert found.within == pytest.approx(0.5, abs=0.05)


def test_lengths_that_do_not_overlap_tell_nothing():
    found = length_share(drawn(0, 0.0, 0), drawn(100, 0.0, 1))
    assert (found.within, found.share, found.covered) == (None, None, 0.0)


def test_without_a_gain_there_is_no_share():
    assert length_share(drawn(0, 0.0, 0), drawn(0, -0.5, 1)).share is None
    with pytest.raises(ValueError, match="no completions"):
        length_share(drawn(0, 0, 0), Scored(np.empty(0), np.empty(0)))


def test_weights_count_as_so_many_copies():
    before, after = drawn(0, 0.0, 0, count=500), drawn(4, 0.3, 1, count=300)
    times = np.random.default_rng(2).integers(0, 4, 300)
    weighted = length_share(before, Scored(after.lengths, after.scores, times.astype(float)), buckets=1)
    copied = length_share(before, Scored(np.repeat(after.lengths, times), np.repeat(after.scores, times)), buckets=1)
    assert weighted.gain == pytest.approx(copied.gain)
    assert weighted.within == pytest.approx(copied.within)
