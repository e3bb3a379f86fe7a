import asyncio
import itertools
import threading
import time

import pytest
from prometheus_client import CollectorRegistry

from palate.client import PolicyVersion
from services.policy.drawing import BatchLimits, Drawing
from services.policy.engine import Row
from services.policy.engine_fake import FakeEngine
from services.policy.jobs import Drawn, Group, Job, Slice, Wanted
from services.policy.metrics import PolicyMetrics
from services.policy.sampling import Sampling
from services.policy.staging import Served
from services.policy.turns import Turns
from services.runtime.errors import Expired, InvalidRequest, NotReady, Overloaded, TooLarge

PATIENCE = 20.0
KEYS = itertools.count()


class Gate:
    """Stops the engine's thread at a step until the test lets it go on."""

    def __init__(self):
        self._arrived = threading.Semaphore(0)
        self._open = threading.Semaphore(0)

    def stop_here(self):
        self._arrived.release()
        assert self._open.acquire(timeout=PATIENCE)

    async def reached(self):
        assert await asyncio.to_thread(self._arrived.acquire, timeout=PATIENCE)

    def let_go(self, steps=1):
        self._open.release(steps)


@pytest.fixture
def metrics():
    return PolicyMetrics(CollectorRegistry())


class Publication:
    """What is served, for ever."""

    interruptions = 0

    def __init__(self, weights):
        self.current = Served(PolicyVersion("run", 1, 1, "d"), weights)


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def turns(metrics, gate):
    """Four completions at a time; every decode step waits for the gate."""
    engine = FakeEngine(8, (), gate.stop_here)
    drawing = Drawing(engine, Publication(engine.initial_weights()), BatchLimits(4, 1000), metrics)
    turns = Turns(drawing, 100, metrics)
    yield turns
    gate.let_go(10_000)
    turns.close()


def job_of(*slices, deadline=None, max_events=50, caller=""):
    return Job(max_events, _deadline(deadline), slices=slices, caller=caller)


def drawing_of(*tokens, deadline=None, stream=False, caller=""):
    """A job that draws completions of so many tokens."""
    rows = [Row(next(KEYS), (1,), key, Sampling(1.0, 0, 1.0, count, True)) for key, count in enumerate(tokens)]
    groups = [Group((Wanted(place, 0, row),)) for place, row in enumerate(rows)]
    return Job(2 * len(rows), _deadline(deadline), groups=groups, stream=stream, caller=caller)


def _deadline(deadline):
    return time.monotonic() + PATIENCE if deadline is None else deadline


def slice_of(*events, tokens=10, gate=None, log=None):
    def run():
        if gate is not None:
            gate.stop_here()
        if log is not None:
            log.extend(events)
        return events

    return Slice(tokens, run)


async def everything(job):
    return [event async for event in job.events()]


async def test_events_arrive_in_order_and_the_queue_is_empty_afterwards(turns, metrics):
    job = job_of(slice_of("a", "b"), slice_of("c"))
    turns.submit(job)
    assert await everything(job) == ["a", "b", "c"]
    assert metrics.queue_tokens._value.get() == 0
    assert job.timing.compute_seconds > 0


async def test_calls_take_turns_slice_by_slice(turns):
    gate, log = Gate(), []
    long = job_of(slice_of("long 0", gate=gate, log=log), *(slice_of(f"long {n}", log=log) for n in (1, 2)))
    turns.submit(long)
    await gate.reached()
    others = [job_of(slice_of(f"{name} 0", log=log), slice_of(f"{name} 1", log=log)) for name in ("b", "c")]
    for job in others:
        turns.submit(job)
    gate.let_go()
    await asyncio.gather(*map(everything, (long, *others)))
    assert log == ["long 0", "long 1", "b 0", "c 0", "long 2", "b 1", "c 1"]


async def test_slices_run_between_decode_steps(turns, gate):
    drawing, log = drawing_of(4), []
    turns.submit(drawing)
    await gate.reached()
    sliced = job_of(*(slice_of(n, log=log) for n in range(3)))
    turns.submit(sliced)
    for step in range(4):
        assert log == list(range(step - 1)) if step else log == []
        gate.let_go()
        if step < 3:
            await gate.reached()
    await asyncio.gather(everything(sliced), everything(drawing))


async def test_a_cancelled_call_ends_within_the_step_it_is_in_and_leaves_its_place(turns, gate, metrics):
    job, other = drawing_of(40, 40), drawing_of(3)
    turns.submit(job)
    await gate.reached()
    turns.submit(other)
    gate.let_go()
    await gate.reached()
    job.cancel()
    gate.let_go(10)
    (drawn,) = await everything(other)
    assert len(drawn.token_ids) == 3
    assert turns._drawing.steps == 4
    assert metrics.dropped.labels("cancelled")._value.get() == 1
    assert metrics.queue_tokens._value.get() == 0


async def test_a_call_whose_deadline_passes_ends_within_the_step_it_is_in(turns, gate, metrics):
    job = drawing_of(40)
    turns.submit(job)
    await gate.reached()
    job.deadline = time.monotonic()
    gate.let_go()
    with pytest.raises(Expired):
        await everything(job)
    assert turns._drawing.steps == 1
    assert metrics.dropped.labels("expired")._value.get() == 1


async def test_an_expired_call_is_never_begun(turns):
    log = []
    jobs = [job_of(slice_of("never", log=log), deadline=time.monotonic() - 1), drawing_of(3, deadline=time.monotonic())]
    for job in jobs:
        turns.submit(job)
    for job in jobs:
        with pytest.raises(Expired):
            await everything(job)
    assert (log, turns._drawing.steps) == ([], 0)


async def test_refuses_at_once_what_the_queue_cannot_hold(turns, gate, metrics):
    with pytest.raises(TooLarge, match="101 tokens"):
        turns.submit(drawing_of(50, 51))
    first = drawing_of(60)
    turns.submit(first)
    await gate.reached()
    second = drawing_of(60)
    with pytest.raises(Overloaded) as refusal:
        turns.submit(second)
    assert 0.05 <= refusal.value.retry_after <= 30
    gate.let_go(20)
    for _ in range(20):
        await gate.reached()
    turns.submit(second)  # twenty tokens have made room
    gate.let_go(100)
    assert [len(drawn.token_ids) for job in (first, second) for drawn in await everything(job)] == [60, 60]
    assert metrics.queue_tokens._value.get() == 0


async def test_a_caller_who_floods_the_queue_leaves_room_for_others(turns, gate, metrics):
    flood = [drawing_of(10, caller="flood") for _ in range(8)]
    for job in flood:
        turns.submit(job)
    await gate.reached()
    with pytest.raises(Overloaded, match="keeps some for those who have few"):  # an eighth of 100 tokens is kept
        turns.submit(drawing_of(10, caller="flood"))
    other = drawing_of(20, caller="other")
    turns.submit(other)
    gate.let_go(10_000)
    for job in (other, *flood):
        assert len(await everything(job)) == 1
    assert metrics.queue_tokens._value.get() == 0


async def test_slices_take_turns_by_caller(turns):
    gate, log = Gate(), []
    first = job_of(slice_of("flood 0", gate=gate, log=log), slice_of("flood 1", log=log), caller="flood")
    turns.submit(first)
    await gate.reached()
    flood = [job_of(slice_of(f"flood {n}", log=log, tokens=10), caller="flood") for n in (2, 3, 4)]
    other = job_of(slice_of("other 0", log=log), slice_of("other 1", log=log), caller="other")
    for job in (*flood, other):
        turns.submit(job)
    gate.let_go()
    await asyncio.gather(*map(everything, (first, *flood, other)))
    assert [word.split()[0] for word in log] == ["flood", "other", "flood", "other", "flood", "flood", "flood"]


async def test_slices_that_have_run_make_room(turns):
    gate = Gate()
    first = job_of(slice_of("a", tokens=60), slice_of("b", tokens=40, gate=gate))
    turns.submit(first)
    await gate.reached()
    second = job_of(slice_of("c", tokens=60))
    turns.submit(second)
    gate.let_go()
    assert await everything(second) == ["c"]


async def test_a_reader_that_does_not_read_blocks_nobody(turns, gate):
    gate.let_go(10_000)
    unread, other = drawing_of(*[2] * 40, stream=True), drawing_of(1)
    turns.submit(unread)
    turns.submit(other)
    assert len(await everything(other)) == 1
    assert sum(isinstance(event, Drawn) for event in await everything(unread)) == 40


async def test_what_a_slice_raises_reaches_its_reader_alone(turns, metrics):
    def failing():
        raise InvalidRequest("no")

    bad, good = job_of(slice_of("before"), Slice(10, failing), slice_of("never")), job_of(slice_of("good"))
    turns.submit(bad)
    turns.submit(good)
    events = bad.events()
    assert await anext(events) == "before"
    with pytest.raises(InvalidRequest):
        await anext(events)
    assert await everything(good) == ["good"]
    assert metrics.queue_tokens._value.get() == 0


async def test_a_bug_reaches_all_readers_and_the_next_call_finds_an_engine(turns, gate, caplog):
    first, second = drawing_of(9), job_of(slice_of("a"), slice_of("b"))
    turns.submit(first)
    await gate.reached()
    turns._drawing._admit = lambda: 1 / 0
    turns.submit(second)
    gate.let_go()
    for job in (first, second):
        with pytest.raises(ZeroDivisionError):
            await everything(job)
    assert "a step failed" in caplog.text
    del turns._drawing._admit
    gate.let_go(10)
    after = drawing_of(2)
    turns.submit(after)
    assert len(await everything(after)) == 1
    assert turns._metrics.queue_tokens._value.get() == 0


async def test_closing_ends_every_call(turns, gate):
    running, waiting = drawing_of(9), drawing_of(*[9] * 4)
    turns.submit(running)
    await gate.reached()
    turns.submit(waiting)
    closing = asyncio.create_task(asyncio.to_thread(turns.close))
    while not turns._closed:
        await asyncio.sleep(0)
    gate.let_go()
    await closing
    for job in (running, waiting):
        with pytest.raises(NotReady):
            await everything(job)
    with pytest.raises(NotReady):
        turns.submit(job_of(slice_of("late")))
