"""Rollouts run ahead of learning: what may be begun, how old it may become, and how it ends."""

import threading
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.client.types import FinishReason, PolicyVersion, VersionSpan
from trainer.ppo.errors import RolloutsFailed
from trainer.ppo.fill import DropLimit, fill_batch
from trainer.ppo.metrics import StageClock, rollout_metrics, staleness_metrics
from trainer.ppo.overlap import OverlapSettings, OverlapSupply, _Group, has_capacity
from trainer.ppo.state import RunState
from trainer.ppo.supply import OnPolicySupply, RolloutSide
from trainer.types import DropCause, DroppedRollout, PromptDraw, Rollout, ScoredRollout

SECONDS = 60.0
"""For which a test waits for what must come."""


def version(step):
    return PolicyVersion("run", 1, step, f"digest {step}")


def state(step, position):
    return RunState(step, position, 0.1, None)


@given(st.integers(1, 4), st.integers(1, 5), st.lists(st.booleans(), max_size=40))
def test_capacity_admits_exactly_what_cannot_become_too_old(bound, size, turns):
    """Against a simulation: batch n is learnt from at step n, once it is done; each turn draws one, or learns."""
    done, step, drawn_at = 0, 0, []
    for draws in turns:
        assert has_capacity(bound, step, size, done * size) == (done - step <= bound)
        if draws and has_capacity(bound, step, size, done * size):
            drawn_at.append(step)
            done += 1
        elif not draws and step < done:
            step += 1
    assert all(number - at <= bound for number, at in enumerate(drawn_at))


class Prompts:
    """Prompts without end; a draw's text says for which batch it is, and which prompt."""

    def draw(self, stream, position, prompts, first_place=0):
        return [
            PromptDraw(f"{stream}/{position + prompt}", (1,), place)
            for place, prompt in enumerate(prompts, first_place)
        ]


class Collector:
    """Draws at once from what was published last, and counts.

    Args:
        fails_at: The call that fails.
        gate: Holds calls up.
    """

    def __init__(self, fails_at=None, gate=None):
        self.calls = []
        self.begun = threading.Semaphore(0)
        self._fails_at = fails_at
        self._gate = gate

    def collect(self, draws, version, oldest=None):
        self.calls.append((int(draws[0].text.split("/")[0].removeprefix("step ")), version.step))
        assert oldest is None or oldest <= version.step
        self.begun.release()
        if self._gate is not None:
            assert self._gate.wait(SECONDS)
        if len(self.calls) == self._fails_at:
            raise RolloutsFailed("gone")
        return [
            Rollout(d.text, "c", (1,), (1,), (-1.0,), FinishReason.STOP, (VersionSpan(0, version),), d.seed)
            for d in draws
        ]


class Scorer:
    """Scores all but the given places of each batch; says when it was asked.

    Args:
        failing: Places that get no score.
    """

    def __init__(self, failing=()):
        self.asked = threading.Semaphore(0)
        self._failing = failing

    def score(self, rollouts):
        self.asked.release()
        return [
            DroppedRollout(one, DropCause.EXPIRED, "late")
            if one.seed in self._failing
            else ScoredRollout(one, 1.0, "r")
            for one in rollouts
        ]

    def wait(self, batches):
        for _ in range(batches):
            assert self.asked.acquire(timeout=SECONDS)


def side_of(collector, scorer, size=2, group=1):
    return RolloutSide(Prompts(), collector, scorer, DropLimit(0.9), size, group)


def supply_of(side, *, bound=1, stale="wait", steps=10, hang_up=lambda: None):
    return OverlapSupply(side, OverlapSettings(bound, stale, steps), hang_up)


@pytest.fixture
def ended():
    """Closes supplies, whatever became of a test."""
    supplies = []
    yield lambda supply: supplies.append(supply) or supply
    for supply in supplies:
        supply.close()


def test_on_policy_is_what_it_was(ended):
    """The batch is that of one plain call of `fill_batch` for the step and its position."""
    scorer = Scorer(failing={1})
    side = side_of(Collector(), scorer, size=4, group=2)
    supplied = OnPolicySupply(side).take(state(3, 7), version(3), StageClock())
    plain = fill_batch(
        4,
        2,
        lambda prompts, first: Prompts().draw("step 3", 7, prompts, first),
        lambda draws: Collector().collect(draws, version(3)),
        scorer.score,
        DropLimit(0.9),
    )
    assert supplied.filled == plain
    assert (supplied.position, supplied.drop_window) == (7 + plain.prompts, side.drop_limit.window)
    told = staleness_metrics(plain, 3)
    assert told.pop("rollout/interrupted_share") == 0
    assert told == {"rollout/staleness_mean": 0, "rollout/staleness_max": 0}


def test_a_rollout_that_was_interrupted_is_as_old_as_its_first_token(ended):
    spans = (VersionSpan(0, version(1)), VersionSpan(1, version(2)))
    filled = OnPolicySupply(side_of(Collector(), Scorer())).take(state(2, 0), version(2), StageClock()).filled
    first, second = filled.scored
    first = replace(first, rollout=replace(first.rollout, policy_versions=spans))
    assert staleness_metrics(replace(filled, scored=(first, second)), 2) == {
        "rollout/staleness_mean": 0.5,
        "rollout/staleness_max": 1,
        "rollout/interrupted_share": 0.5,
    }
    supply = ended(supply_of(side_of(Collector(), Scorer())))
    assert _Group(0, (first, second), None).staleness(2) == 1
    supply._pool.append(_Group(0, (first, second), None))
    with supply._changed:
        assert supply._drop_stale(2, StageClock()) == []
        dropped = supply._drop_stale(3, StageClock())
    assert [(one.cause, one.rollout.interrupted) for one in dropped] == [
        (DropCause.STALE, True),
        (DropCause.STALE, False),
    ]


@settings(deadline=None, max_examples=30)
@given(
    st.integers(1, 3),
    st.sampled_from(["wait", "drop"]),
    st.sampled_from([(1, 1), (2, 1), (4, 2)]),
    st.sets(st.integers(0, 3), max_size=2),
    st.integers(0, 4),
    st.data(),
)
def test_no_rollout_is_older_than_the_bound(bound, stale, sizes, failing, first, data):
    size, group = sizes
    scorer, collector, steps = Scorer(failing), Collector(), first + 6
    side = side_of(collector, scorer, size, group)
    supply = supply_of(side, bound=bound, stale=stale, steps=steps)
    position, seen = 5, []
    try:
        for step in range(first, steps):
            if data.draw(st.booleans()):
                scorer.asked.acquire(timeout=0.001)  # lets the thread run ahead, or not
            supplied = supply.take(state(step, position), version(step), StageClock())
            scored = supplied.filled.scored
            assert len(scored) == size
            assert staleness_metrics(supplied.filled, step)["rollout/staleness_max"] <= bound
            prompts = [one.rollout.prompt for one in scored]
            assert all(len(set(prompts[start : start + group])) == 1 for start in range(0, size, group))
            assert len(supply._pool) * group <= (bound + 1) * size
            dropped = [one for one in supplied.filled.dropped if one.cause is DropCause.STALE]
            assert stale == "drop" or not dropped
            seen += [int(prompt.split("/")[1]) for prompt in prompts[::group]]
            position = supplied.position
    finally:
        supply.close()
    assert seen == sorted(set(seen))  # no prompt twice, none out of turn
    assert seen[0] >= 5
    if stale == "wait":
        assert all(number - drawn_at <= bound for number, drawn_at in collector.calls)
        assert {number for number, _ in collector.calls} == set(range(first, steps))  # nothing that nobody learns from


def test_wait_begins_nothing_that_would_become_too_old(ended):
    scorer, collector = Scorer(), Collector()
    supply = ended(supply_of(side_of(collector, scorer), bound=1, stale="wait"))
    for step in range(4):
        supply.take(state(step, 2 * step), version(step), StageClock())
    scorer.wait(5)
    assert [number for number, _ in collector.calls] == [0, 1, 2, 3, 4]
    assert all(number - drawn_at <= 1 for number, drawn_at in collector.calls)
    assert not supply._may_begin()  # batch 5 waits for the weights of step 4


def test_drop_goes_on_while_there_is_room_and_drops_what_became_too_old(ended):
    scorer = Scorer()
    supply = ended(supply_of(side_of(Collector(), scorer), bound=1, stale="drop"))
    supply.take(state(0, 0), version(0), StageClock())
    scorer.wait(3)  # two batches ahead, both of the first weights
    second = supply.take(state(1, 2), version(1), StageClock())
    assert staleness_metrics(second.filled, 1)["rollout/staleness_mean"] == 1
    scorer.wait(1)
    third = supply.take(state(2, second.position), version(2), StageClock())
    assert [(one.cause, one.rollout.oldest_version.step) for one in third.filled.dropped] == [(DropCause.STALE, 0)] * 2
    assert staleness_metrics(third.filled, 2)["rollout/staleness_max"] <= 1
    metrics = rollout_metrics(third.filled)
    assert (metrics["rollout/dropped_stale"], metrics["rollout/dropped_expired"]) == (2, 0)
    assert [one.rollout.prompt.split("/")[1] for one in third.filled.scored] == ["6", "7"]  # refilled from what follows
    assert True not in third.drop_window  # that limit is on what gets no score


def test_prompts_in_flight_are_drawn_again(ended):
    scorer = Scorer()
    supply = ended(supply_of(side_of(Collector(), scorer)))
    supplied = supply.take(state(0, 0), version(0), StageClock())
    scorer.wait(2)  # the next batch is ready, nobody has learnt from it
    resumed = ended(supply_of(side_of(Collector(), Scorer())))
    again = resumed.take(state(1, supplied.position), PolicyVersion("run", 2, 1, "d"), StageClock())
    following = supply.take(state(1, supplied.position), version(1), StageClock())
    assert [(one.rollout.prompt, one.rollout.seed) for one in again.filled.scored] == [
        (one.rollout.prompt, one.rollout.seed) for one in following.filled.scored
    ]


def test_what_goes_wrong_surfaces_in_the_loop_after_what_went_well(ended):
    supply = ended(supply_of(side_of(Collector(fails_at=2), Scorer())))
    supply.take(state(0, 0), version(0), StageClock())
    with pytest.raises(RolloutsFailed, match="gone"):
        supply.take(state(1, 2), version(1), StageClock())


def test_closing_ends_the_call_that_is_out():
    gate = threading.Event()
    collector = Collector(fails_at=1, gate=gate)
    supply = supply_of(side_of(collector, Scorer()), hang_up=gate.set)
    taken = []
    taking = threading.Thread(target=lambda: taken.append(caught(supply)))
    taking.start()
    assert collector.begun.acquire(timeout=SECONDS)
    supply.close()
    taking.join(SECONDS)
    assert isinstance(taken[0], RolloutsFailed)
    assert not supply._thread.is_alive()


def caught(supply):
    with pytest.raises(RolloutsFailed) as raised:
        supply.take(state(0, 0), version(0), StageClock())
    return raised.value


def test_closing_what_never_began_does_nothing():
    collector, hung_up = Collector(), []
    supply = supply_of(side_of(collector, Scorer()), hang_up=lambda: hung_up.append(True))
    supply.close()
    assert (hung_up, collector.calls) == ([], [])
    assert not [thread for thread in threading.enumerate() if thread.name == "overlap"]
