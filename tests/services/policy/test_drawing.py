"""Who gets a free place, and when; whoever comes, leaves or publishes, no completion is lost or given twice."""

import asyncio
import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from palate.client import PolicyVersion
from services.policy.drawing import BatchLimits, Drawing
from services.policy.engine import Row
from services.policy.engine_fake import FakeEngine
from services.policy.jobs import Drawn, Group, Job, Wanted
from services.policy.mailbox import Piece
from services.policy.metrics import PolicyMetrics
from services.policy.sampling import Sampling
from services.policy.staging import Served

VOCAB = 11


class Publication:
    """Weights that are served, one version after the other."""

    def __init__(self, weights):
        self.interruptions = 0
        self.current = Served(PolicyVersion("run", 1, 0, "d"), weights)

    def commit(self, *, interrupt):
        step = self.current.version.step + 1
        self.current = Served(PolicyVersion("run", 1, step, "d"), self.current.weights.roll(1))
        self.interruptions += interrupt


class Desk:
    """Drawing, and what it has told so far, as the engine's thread would take it."""

    def __init__(self, rows=4, tokens=10_000, engine=None, **of_engine):
        self.engine = engine or FakeEngine(VOCAB, ())
        for name, value in of_engine.items():
            setattr(self.engine, name, value)
        self.publication = Publication(self.engine.initial_weights())
        metrics = PolicyMetrics(CollectorRegistry())
        self.limits = BatchLimits(rows, tokens)
        self.drawing = Drawing(self.engine, self.publication, self.limits, metrics)
        self.jobs, self.events, self.keys = [], {}, 0

    def submit(
        self,
        *lengths,
        deadline=math.inf,
        apart=False,
        pinned=False,
        stream=False,
        ends_text=None,
        strict=False,
        caller="",
    ):
        """A call that wants completions of so many tokens; apart, all of them in one group."""
        rows = [Row(self.keys + n, (1, 2), self.keys + n, _sampling(length)) for n, length in enumerate(lengths)]
        self.keys += len(rows)
        wanted = [Wanted(n, 0, row, ends_text) for n, row in enumerate(rows)]
        served = self.publication.current if pinned else None
        groups = (
            [Group(tuple(wanted), True, served, strict)] if apart else [Group((one,), False, served) for one in wanted]
        )
        job = Job(len(rows) * 100, deadline, groups=groups, stream=stream, caller=caller)
        self.jobs.append(job)
        self.events[job] = []
        self.drawing.add(job)
        return job

    def round(self):
        for step in self.drawing.round():
            for happened in step:
                assert happened.error is None
                self.events[happened.job] += happened.events
                happened.job.open_tokens -= happened.tokens
                if happened.job.done:
                    self.drawing.remove(happened.job)

    def rounds(self, most=10_000):
        while any(not job.done for job in self.jobs) and most:
            self.round()
            most -= 1

    def cancel(self, job):
        self.drawing.remove(job)
        self.jobs.remove(job)

    def lengths(self, job):
        return [len(event.token_ids) for event in self.events[job] if isinstance(event, Drawn)]

    def drawn(self, job):
        return {event.prompt_index: event for event in self.events[job] if isinstance(event, Drawn)}


def _sampling(length):
    return Sampling(1.0, 0, 1.0, length, True)


def alone(row, weights):
    """What the row draws where nothing else is."""
    batch = FakeEngine(VOCAB, ()).batch(weights)
    batch.join([row])
    return [batch.step().tokens[0].token_id for _ in range(row.sampling.max_new_tokens)]


@pytest.fixture(autouse=True)
async def in_a_loop():
    """A job's mailbox belongs to an event loop."""
    asyncio.get_running_loop()


async def test_a_free_place_goes_to_the_next_while_a_long_one_is_drawn():
    desk = Desk(rows=2)
    long = desk.submit(100)
    short = desk.submit(*[5] * 10)
    desk.rounds(52)
    assert desk.lengths(short) == [5] * 10
    assert desk.lengths(long) == []
    desk.rounds()
    assert desk.lengths(long) == [100]


async def test_a_later_call_waits_for_one_place_not_for_all_of_an_earlier_call():
    desk = Desk(rows=4)
    greedy = desk.submit(*[8] * 40)
    desk.rounds(3)
    late = desk.submit(2)
    desk.rounds(8)
    assert desk.lengths(late) == [2]
    desk.rounds()
    assert desk.lengths(greedy) == [8] * 40


async def test_among_calls_with_equal_shares_the_earliest_deadline_is_first():
    desk = Desk(rows=1)
    first = desk.submit(3)
    desk.round()
    jobs = [desk.submit(2, deadline=deadline) for deadline in (30.0, 10.0, 20.0)]
    ended = []
    while len(ended) < 3:
        desk.round()
        ended += [job.deadline for job in jobs if job.done and job.deadline not in ended]
    assert ended == [10.0, 20.0, 30.0]
    assert desk.lengths(first) == [3]


async def test_two_large_calls_share_the_places():
    desk = Desk(rows=4)
    jobs = [desk.submit(*[6] * 20) for _ in range(2)]
    desk.round()
    assert [job.running for job in jobs] == [2, 2]


async def test_a_group_apart_is_drawn_beside_the_others_and_joined_by_none():
    desk = Desk(rows=4)
    others = [desk.submit(*[9] * 3)]
    strict = [desk.submit(9, 3, 5, apart=True), desk.submit(4, 4, apart=True)]
    desk.round()
    assert [len(lane) for lane in desk.drawing._lanes] == [3, 3]
    assert (strict[0].running, strict[1].running) == (3, 0)  # one group apart at a time
    others.append(desk.submit(1))
    desk.round()
    assert others[1].done
    assert strict[0].running == 3
    desk.rounds()
    assert [sorted(desk.lengths(job)) for job in strict] == [[3, 5, 9], [4, 4]]


async def test_where_rows_cannot_join_a_long_call_leaves_room_for_others():
    desk = Desk(joins=False)
    desk.submit(50, apart=True)
    short = desk.submit(2, apart=True)
    desk.rounds(2)
    assert desk.lengths(short) == [2]


async def test_a_commit_leaves_running_completions_their_weights_and_gives_new_ones_the_new():
    desk = Desk()
    old = desk.submit(6, stream=True)
    desk.rounds(2)
    first = desk.publication.current
    desk.publication.commit(interrupt=False)
    new = desk.submit(6)
    desk.rounds()
    (before,), (after,) = desk.drawn(old).values(), desk.drawn(new).values()
    assert [(span.first_token, span.version) for span in before.versions] == [(0, first.version)]
    assert [(span.first_token, span.version) for span in after.versions] == [(0, desk.publication.current.version)]
    for drawn, served in ((before, first), (after, desk.publication.current)):
        expected = served.weights.log_softmax(0)[list(drawn.token_ids)].tolist()
        assert list(drawn.logprobs) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("apart", [False, True])
async def test_a_commit_that_interrupts_is_followed_at_the_next_step_but_not_by_pinned_calls(apart):
    desk = Desk()
    first = desk.publication.current
    following, pinned = desk.submit(6, 9, apart=apart), desk.submit(6, pinned=True)
    desk.rounds(2)
    desk.publication.commit(interrupt=False)
    desk.round()
    desk.publication.commit(interrupt=True)
    second = desk.publication.current
    desk.rounds()
    assert [span.version for span in desk.drawn(pinned)[0].versions] == [first.version]
    spans = [(0, first.version), (3, second.version)]
    for drawn in desk.drawn(following).values():
        assert [(span.first_token, span.version) for span in drawn.versions] == spans
        tables = [first.weights.log_softmax(0)] * 3 + [second.weights.log_softmax(0)] * 6
        expected = [table[token].item() for table, token in zip(tables, drawn.token_ids, strict=False)]
        assert list(drawn.logprobs) == pytest.approx(expected, abs=1e-6)


async def test_two_interruptions_between_steps_leave_one_span():
    desk = Desk()
    job = desk.submit(4)
    desk.round()
    first = desk.publication.current
    for _ in range(2):
        desk.publication.commit(interrupt=True)
        desk.drawing._follow()
        desk.drawing._admit()
    desk.rounds()
    spans = [(span.first_token, span.version.step) for span in desk.drawn(job)[0].versions]
    assert spans == [(0, first.version.step), (1, 2)]


async def test_an_engine_with_one_set_of_weights_ends_what_runs_before_it_takes_others():
    desk = Desk(one_batch=True)
    old = desk.submit(5)
    desk.rounds(2)
    desk.publication.commit(interrupt=False)
    new, pinned_to_new = desk.submit(2), desk.submit(2, pinned=True)
    desk.rounds(3)
    assert (desk.lengths(old), new.running, pinned_to_new.running) == ([5], 0, 0)
    desk.rounds(2)
    assert (desk.lengths(new), desk.lengths(pinned_to_new)) == ([2], [2])


async def test_a_text_that_ends_frees_its_place():
    desk = Desk(rows=1)
    stopped = desk.submit(50, ends_text=lambda ids: len(ids) == 3, stream=True)
    after = desk.submit(1)
    desk.rounds(4)
    (drawn,) = desk.drawn(stopped).values()
    assert (len(drawn.token_ids), drawn.stopped) == (3, True)
    pieces = [event for event in desk.events[stopped] if isinstance(event, Piece)]
    assert [piece.last for piece in pieces] == [False, False, True]
    assert after.done


async def test_batches_keep_to_their_tokens():
    desk = Desk(rows=8, tokens=60)
    wide = desk.submit(28)  # 30 tokens with its prompt: only one more fits beside it
    narrow = desk.submit(*[3] * 4)
    desk.round()
    assert (wide.running, narrow.running) == (1, 1)
    desk.rounds()
    too_wide = desk.submit(200)
    desk.rounds()
    assert desk.lengths(too_wide) == [200]


async def test_a_call_that_cannot_begin_fails_alone():
    desk = Desk()
    bad = desk.submit(3, 3)
    desk.engine.batch = lambda weights: 1 / 0
    (admission,) = list(desk.drawing.round())
    assert [(happened.job, type(happened.error)) for happened in admission] == [(bad, ZeroDivisionError)]


async def test_a_caller_with_many_calls_has_no_more_places_than_one_with_a_single_call():
    desk = Desk(rows=4)
    many = [desk.submit(6, 6, caller="many") for _ in range(20)]
    one = desk.submit(*[6] * 20, caller="one")
    desk.round()
    assert (sum(job.running for job in many), one.running) == (2, 2)
    assert max(job.running for job in many) == 1  # and his calls share what is his
    desk.rounds()
    assert all(desk.lengths(job) == [6, 6] for job in many)
    assert desk.lengths(one) == [6] * 20


@settings(max_examples=60, deadline=None)
@given(
    flood=st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1, max_size=4),
    rows=st.integers(1, 3),
    apart=st.booleans(),
    before=st.integers(0, 12),
)
def test_no_caller_waits_for_more_than_one_turn_of_each_other(flood, rows, apart, before):
    asyncio.run(_flooded(flood, Desk(rows), apart, before))


async def _flooded(flood, desk, apart, before):
    """Floods come again and again, with ever earlier deadlines; then one call comes that is in no hurry."""
    begun, begin = [], desk.drawing._begin
    desk.drawing._begin = lambda job: (begun.append(job.caller), begin(job))

    def flood_on(number):
        for name, (length, is_apart) in enumerate(flood):
            for _ in range(3):
                desk.submit(length, apart=is_apart, deadline=-number, caller=f"flood {name}")

    for number in range(before):
        flood_on(number)
        desk.round()
    late, came = desk.submit(3, apart=apart, caller="late"), len(begun)
    for number in range(before, before + 200):
        flood_on(number)
        desk.round()
        if "late" in begun:
            break
    ahead = Counter(begun[came : begun.index("late")])
    among = {f"flood {name}" for name, (_, is_apart) in enumerate(flood) if is_apart == apart}
    assert all(ahead[caller] <= 1 for caller in among), ahead
    desk.rounds()
    assert desk.lengths(late) == [3]
    assert all(len(desk.lengths(job)) == 1 for job in desk.jobs)


ACTIONS = st.one_of(
    st.tuples(
        st.just("submit"),
        st.lists(st.integers(1, 12), min_size=1, max_size=9),
        st.fixed_dictionaries({"apart": st.booleans(), "pinned": st.booleans(), "deadline": st.floats(0, 9)}),
    ),
    st.tuples(st.just("rounds"), st.integers(1, 9)),
    st.tuples(st.just("cancel"), st.integers(0, 20)),
    st.tuples(st.just("commit"), st.booleans()),
)


@settings(max_examples=120, deadline=None)
@given(
    actions=st.lists(ACTIONS, max_size=14),
    rows=st.integers(1, 6),
    tokens=st.sampled_from([10_000, 40]),
    one_batch=st.booleans(),
)
def test_every_completion_comes_once_and_as_if_it_were_alone(actions, rows, tokens, one_batch):
    asyncio.run(_any_order(actions, Desk(rows, tokens, one_batch=one_batch)))


async def _any_order(actions, desk):
    begin = desk.publication.current
    for job, (wanted, pinned) in play(actions, desk).items():
        check(desk, job, wanted, pinned, begin)
    assert not desk.drawing._lanes
    assert not desk.drawing._jobs


def play(actions, desk):
    """Does it all, to its end; the rows of every call that was not cancelled, and whether it was pinned."""
    asked = {}
    for action, *rest in actions:
        if action == "submit":
            lengths, how = rest
            if not desk.engine.joins:
                lengths, how = lengths[: desk.limits.max_rows], {**how, "apart": True}
            how = {**how, "apart": how["apart"] and len(lengths) <= desk.limits.max_rows and not desk.engine.one_batch}
            job = desk.submit(*lengths, stream=True, **how)
            asked[job] = [one.row for group in job.groups for one in group.wanted], how["pinned"]
        elif action == "rounds":
            for _ in range(rest[0]):
                desk.round()
                shared = [lane for lane in desk.drawing._lanes if not lane.apart]
                assert sum(map(len, shared)) <= desk.limits.max_rows
                assert sum(map(len, shared)) <= 1 or sum(lane.tokens_with() for lane in shared) <= tokens_of(desk)
                assert not desk.engine.one_batch or sum(lane._batch is not None for lane in shared) <= 1
        elif action == "cancel" and desk.jobs:
            job = desk.jobs[rest[0] % len(desk.jobs)]
            desk.cancel(job)
            asked.pop(job)
            desk.events[job].clear()
        elif action == "commit":
            desk.publication.commit(interrupt=rest[0])
    desk.rounds()
    return {job: (dict(enumerate(wanted)), pinned) for job, (wanted, pinned) in asked.items()}


def tokens_of(desk):
    return desk.limits.max_tokens


def check(desk, job, wanted, pinned, begin):
    """Each completion once, in whole, its tokens told before it, drawn from the weights that its spans name.

    `wanted` are rows by their place in the call.
    """
    assert job.open_tokens == 0
    assert Counter(event.prompt_index for event in desk.events[job] if isinstance(event, Drawn)) == Counter(
        list(wanted)
    )
    for place, drawn in desk.drawn(job).items():
        row = wanted[place]
        assert len(drawn.token_ids) == row.sampling.max_new_tokens
        pieces = [e for e in desk.events[job] if isinstance(e, Piece) and e.prompt_index == place]
        assert [token for piece in pieces for token in piece.token_ids] == list(drawn.token_ids)
        assert [piece.last for piece in pieces] == [False] * (len(pieces) - 1) + [True]
        starts = [span.first_token for span in drawn.versions]
        assert starts[0] == 0
        assert starts == sorted(set(starts))
        assert starts[-1] < len(drawn.token_ids)
        assert not pinned or len(starts) == 1
        for span, end in zip(drawn.versions, [*starts[1:], len(drawn.token_ids)], strict=True):
            log_p = begin.weights.roll(span.version.step).log_softmax(0)
            part = slice(span.first_token, end)
            expected = log_p[list(drawn.token_ids[part])]
            assert torch.allclose(torch.tensor(drawn.logprobs[part]), expected, atol=1e-6)
        if len(starts) == 1:
            weights = begin.weights.roll(drawn.versions[0].version.step)
            assert alone(replace(row, key=0), weights) == list(drawn.token_ids)
