"""Several rewards become one score: transforms, weights, and what the whole is known by."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.ppo.combination import Share, combined_revision, combined_score
from trainer.ppo.errors import ScoresAlike
from trainer.ppo.rewards import ScoreScale, score_scale
from trainer.types import ComponentScore

FINITE = st.floats(-1e6, 1e6)


def raw(*scores):
    return [ComponentScore(f"r{place}", score, "rev") for place, score in enumerate(scores)]


@given(st.lists(st.tuples(FINITE, FINITE), min_size=1, max_size=6))
def test_without_transforms_it_is_the_weighted_sum(pairs):
    shares = [Share(f"r{place}", weight) for place, (weight, _) in enumerate(pairs)]
    found = combined_score(shares, raw(*(score for _, score in pairs)), {})
    assert found == pytest.approx(sum(weight * score for weight, score in pairs), rel=1e-9, abs=1e-3)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_the_single_reward_keeps_its_bits(score):
    assert combined_score([Share("reward")], raw(score), {}) == score


@given(st.floats(-1e300, 1e300), st.sampled_from(["none", "sigmoid", "standardize"]), st.floats(0.1, 10))
def test_a_clip_bounds_what_a_reward_can_add(score, transform, clip):
    share = Share("r", 2.0, transform, clip)
    assert abs(share.of(score, ScoreScale(1.0, 2.0))) <= 2 * clip


def test_transforms_golden():
    assert Share("r", 3.0, "standardize").of(5.0, ScoreScale(1.0, 2.0)) == 6.0
    assert Share("r", 1.0, "standardize", 1.5).of(5.0, ScoreScale(1.0, 2.0)) == 1.5
    assert Share("r", 2.0, "sigmoid").of(0.0, None) == 1.0
    assert Share("r", 1.0, "sigmoid").of(1.25, None) == pytest.approx(1 / (1 + math.exp(-1.25)))
    assert Share("r", 1.0, "sigmoid").of(-1e308, None) == 0.0


def test_a_revision_stands_for_all_and_depends_on_each():
    assert combined_revision({"reward": "abc"}) == "abc"
    both = combined_revision({"a": "1", "b": "2"})
    assert both == combined_revision({"b": "2", "a": "1"})
    assert len({both, combined_revision({"a": "2", "b": "1"}), combined_revision({"a": "1", "b": "3"})}) == 3


def test_scores_without_spread_have_no_scale():
    assert score_scale("it", [1.0, 3.0]) == ScoreScale(2.0, 1.0)
    with pytest.raises(ScoresAlike, match=r"reward format.*leave standardising out"):
        score_scale("reward format", [0.0, 0.0])
