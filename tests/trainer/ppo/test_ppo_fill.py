"""A batch is filled with scored rollouts; what has no score is drawn again, counted and limited."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.client.types import FinishReason, PolicyVersion, VersionSpan
from trainer.ppo.errors import TooFewDrawn, TooManyDropped
from trainer.ppo.fill import DROP_WINDOW, DropLimit, fill_batch
from trainer.ppo.metrics import rollout_metrics
from trainer.types import DropCause, DroppedDraw, DroppedRollout, PromptDraw, Rollout, ScoredRollout

VERSION = PolicyVersion("run", 1, 0, "digest")


def rollout(place, length=2, prompt="p"):
    ids = (1,) * length
    return Rollout(prompt, "c", (1,), ids, (-1.0,) * length, FinishReason.STOP, (VersionSpan(0, VERSION),), place)


def draw(prompts, first_place):
    return [PromptDraw(f"p{prompt}", (1,), place) for place, prompt in enumerate(prompts, first_place)]


def roll(draws):
    return [rollout(one.seed, 10 if one.seed % 4 == 0 else 2, one.text) for one in draws]


def scorer(failing, cause=DropCause.EXPIRED):
    def score(rollouts):
        return [
            DroppedRollout(one, cause, f"why {one.seed}") if one.seed in failing else ScoredRollout(one, 1.0, "rev")
            for one in rollouts
        ]

    return score


def fill(size, failing, share, cause=DropCause.EXPIRED, group_size=1):
    return fill_batch(size, group_size, draw, roll, scorer(failing, cause), DropLimit(share))


def test_nothing_falls_out():
    filled = fill(6, set(), 0.0)
    assert [one.rollout.seed for one in filled.scored] == list(range(6))
    assert filled.dropped == ()
    assert rollout_metrics(filled)["rollout/dropped_invalid"] == 0


def test_what_falls_out_is_drawn_again_at_places_of_its_own():
    filled = fill(6, {0, 4, 7}, 0.5)
    assert [one.rollout.seed for one in filled.scored] == [1, 2, 3, 5, 6, 8]
    assert [one.rollout.seed for one in filled.dropped] == [0, 4, 7]
    metrics = rollout_metrics(filled)
    assert metrics["rollout/dropped_share"] == pytest.approx(3 / 9)
    assert metrics["rollout/dropped_mean_length"] == pytest.approx((10 + 10 + 2) / 3)
    assert (metrics["rollout/dropped_expired"], metrics["rollout/dropped_invalid"]) == (3, 0)
    assert all(isinstance(one, ScoredRollout) for one in filled.scored)
    assert not hasattr(filled.dropped[0], "score")


@pytest.mark.parametrize("size", [1, 2, 8])
@pytest.mark.parametrize("cause", list(DropCause))
def test_one_that_cannot_be_scored_stops_no_small_batch(size, cause):
    filled = fill(size, {0}, 0.1, cause)
    assert (len(filled.scored), len(filled.dropped)) == (size, 1)
    assert rollout_metrics(filled)[f"rollout/dropped_{cause.lower()}"] == 1


def test_none_may_fall_out_where_the_share_is_zero():
    with pytest.raises(TooManyDropped, match="allows 0 of 100"):
        fill(8, {0}, 0.0)


def test_too_many_stop_the_run_with_causes_and_lengths():
    with pytest.raises(TooManyDropped) as raised:
        fill(40, set(range(0, 40, 4)), 0.09)
    told = str(raised.value)
    assert "10 of the last 40" in told
    assert "allows 9 of 100" in told
    assert "10 × EXPIRED: why 0" in told  # causes are counted, however their messages differ
    assert "10.0 tokens" in told
    assert "kept ones 2.0" in told
    assert "--services.timeout" in told


def test_the_remedy_is_that_of_the_commonest_cause():
    with pytest.raises(TooManyDropped, match="NUL character"):
        fill(8, {0}, 0.0, DropCause.INVALID)
    with pytest.raises(TooManyDropped, match=r"--sampling\.max-new-tokens"):
        fill(8, {0}, 0.0, DropCause.TOO_LONG)
    with pytest.raises(TooManyDropped, match=r"is away: start it again, then go on with --resume"):
        fill(8, {0}, 0.0, DropCause.UNAVAILABLE)


def roll_without(failing):
    """Draws all but some places, whose prompts are longer."""

    def roll_some(draws):
        return [
            DroppedDraw(PromptDraw(one.text, (1,) * 9, one.seed), DropCause.DRAW_FAILED, f"why {one.seed}")
            if one.seed in failing
            else roll([one])[0]
            for one in draws
        ]

    return roll_some


def test_what_could_not_be_drawn_is_never_scored_and_drawn_again():
    asked = []

    def score(rollouts):
        asked.extend(one.seed for one in rollouts)
        return scorer({4})(rollouts)

    filled = fill_batch(6, 1, draw, roll_without({0, 3, 7}), score, DropLimit(0.5))
    assert [one.rollout.seed for one in filled.scored] == [1, 2, 5, 6, 8, 9]
    assert [one.cause for one in filled.dropped] == [
        DropCause.DRAW_FAILED,
        DropCause.DRAW_FAILED,
        DropCause.EXPIRED,
        DropCause.DRAW_FAILED,
    ]
    assert sorted(asked) == [1, 2, 4, 5, 6, 8, 9]
    metrics = rollout_metrics(filled)
    assert (metrics["rollout/dropped_draw_failed"], metrics["rollout/dropped_expired"]) == (3, 1)
    assert metrics["rollout/dropped_mean_length"] == 10  # of the one that was drawn
    assert metrics["rollout/dropped_mean_prompt_length"] == pytest.approx((9 + 9 + 1 + 9) / 4)
    assert metrics["rollout/mean_prompt_length"] == 1


def test_a_policy_that_draws_nothing_is_told_by_its_prompts():
    def unasked(rollouts):
        raise AssertionError("there is nothing to score")

    with pytest.raises(TooFewDrawn) as raised:
        fill_batch(12, 1, draw, roll_without(set(range(1000))), unasked, DropLimit(0.1))
    told = str(raised.value)
    assert "12 × DRAW_FAILED: why 0; prompts of completions that were not drawn have 9.0 tokens on average." in told
    with pytest.raises(TooFewDrawn, match=r"have 9\.0 tokens on average, kept ones 1\.0\. .*--max-batch-tokens"):
        fill_batch(40, 1, draw, roll_without(set(range(0, 40, 3))), scorer({1}), DropLimit(0.1))


def test_large_batches_are_judged_by_their_own_share():
    size = 4 * DROP_WINDOW
    assert len(fill(size, set(range(0, size, 20)), 0.1).dropped) == size // 20
    with pytest.raises(TooManyDropped):
        fill(size, set(range(0, size, 8)), 0.1)


def test_small_batches_are_judged_together_with_those_before():
    limit = DropLimit(0.1)
    for _ in range(10):
        fill_batch(4, 1, draw, roll, scorer({0}), limit)  # one of five, batch after batch
    with pytest.raises(TooManyDropped, match="11 of the last 54"):
        fill_batch(4, 1, draw, roll, scorer({0}), limit)


def test_what_happened_long_ago_is_forgotten():
    limit = DropLimit(0.1)
    for _ in range(100):
        fill_batch(19, 1, draw, roll, scorer({0}), limit)  # one of twenty
    many = scorer(set(range(10)))
    with pytest.raises(TooManyDropped):
        fill_batch(4, 1, draw, roll, many, DropLimit(0.1, limit.window))
    fill_batch(DROP_WINDOW, 1, draw, roll, scorer(set()), limit)
    assert len(fill_batch(4, 1, draw, roll, many, limit).dropped) == 10


def test_a_service_that_scores_nothing_stops_the_run():
    with pytest.raises(TooManyDropped, match="12 of the last 12"):
        fill(4, set(range(1000)), 0.1)


def members(filled, size):
    """(prompt, places) of each group; every group is of one prompt."""
    rows = [(one.rollout.prompt, one.rollout.seed) for one in filled.scored]
    groups = [rows[start : start + size] for start in range(0, len(rows), size)]
    assert all(len({prompt for prompt, _ in group}) == 1 for group in groups)
    return [(group[0][0], [place for _, place in group]) for group in groups]


def test_completions_of_a_prompt_stand_together():
    filled = fill(6, set(), 0.0, group_size=3)
    assert members(filled, 3) == [("p0", [0, 1, 2]), ("p1", [3, 4, 5])]
    assert filled.prompts == 2


def test_a_group_that_loses_members_gets_others_of_the_same_prompt():
    filled = fill(6, {1, 3, 7}, 0.5, group_size=3)
    # p0 loses place 1, p1 place 3; they get 6 and 7; of those p1 loses 7 and gets 8.
    assert members(filled, 3) == [("p0", [0, 2, 6]), ("p1", [4, 5, 8])]
    assert [one.rollout.seed for one in filled.dropped] == [1, 3, 7]
    assert filled.prompts == 2


def test_a_prompt_that_never_gets_a_score_makes_room_for_the_next():
    filled = fill(6, {0, 1, 2}, 0.5, group_size=3)
    assert members(filled, 3) == [("p1", [3, 4, 5]), ("p2", [6, 7, 8])]
    assert filled.prompts == 3


@given(st.sampled_from([1, 2, 4]), st.integers(1, 4), st.sets(st.integers(0, 40), max_size=15))
def test_batches_are_whole_groups_whatever_falls_out(size, count, failing):
    filled = fill(size * count, failing, 0.99, group_size=size)
    groups = members(filled, size)
    assert len(groups) == count
    assert all(len(places) == size for _, places in groups)
    prompts = [int(prompt[1:]) for prompt, _ in groups]
    assert prompts == sorted(set(prompts))
    assert max(prompts) < filled.prompts
    seeds = [one.rollout.seed for one in (*filled.scored, *filled.dropped)]
    assert sorted(seeds) == list(range(len(seeds)))  # every place is drawn once
