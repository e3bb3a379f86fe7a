"""A batch is filled with scored rollouts; what has no score is drawn again, counted and limited."""

import pytest

from palate.client.types import FinishReason, PolicyVersion
from trainer.ppo.errors import TooManyDropped
from trainer.ppo.fill import fill_batch
from trainer.ppo.metrics import rollout_metrics
from trainer.types import DroppedRollout, PromptDraw, Rollout, ScoredRollout

VERSION = PolicyVersion("run", 1, 0, "digest")


def rollout(place, length=2):
    ids = (1,) * length
    return Rollout("p", "c", (1,), ids, (-1.0,) * length, FinishReason.STOP, VERSION, place)


def draw(count, first_place):
    return [PromptDraw("p", (1,), place) for place in range(first_place, first_place + count)]


def roll(draws):
    return [rollout(one.seed, length=10 if one.seed % 4 == 0 else 2) for one in draws]


def scorer(failing):
    def score(rollouts):
        return [
            DroppedRollout(one, "EXPIRED: too late") if one.seed in failing else ScoredRollout(one, 1.0, "rev")
            for one in rollouts
        ]

    return score


def test_nothing_falls_out():
    filled = fill_batch(6, draw, roll, scorer(set()), 0.0)
    assert [one.rollout.seed for one in filled.scored] == list(range(6))
    assert filled.dropped == ()


def test_what_falls_out_is_drawn_again_at_places_of_its_own():
    filled = fill_batch(6, draw, roll, scorer({0, 4, 7}), 0.5)
    assert [one.rollout.seed for one in filled.scored] == [1, 2, 3, 5, 6, 8]
    assert [one.rollout.seed for one in filled.dropped] == [0, 4, 7]
    assert rollout_metrics(filled)["rollout/dropped_share"] == pytest.approx(3 / 9)
    assert rollout_metrics(filled)["rollout/dropped_mean_length"] == pytest.approx((10 + 10 + 2) / 3)
    assert all(isinstance(one, ScoredRollout) for one in filled.scored)
    assert not hasattr(filled.dropped[0], "score")


def test_too_many_stop_the_run_with_reasons_and_lengths():
    with pytest.raises(TooManyDropped) as raised:
        fill_batch(8, draw, roll, scorer({0, 4}), 0.2)
    told = str(raised.value)
    assert "2 of 8" in told
    assert "2 × EXPIRED: too late" in told
    assert "10.0 tokens" in told
    assert "kept ones 2.0" in told


def test_a_service_that_scores_nothing_stops_the_run():
    with pytest.raises(TooManyDropped, match="4 of 4"):
        fill_batch(4, draw, roll, scorer(set(range(100))), 0.9)
