import asyncio
import threading
import time

import pytest
from prometheus_client import CollectorRegistry

from services.policy.metrics import PolicyMetrics
from services.policy.turns import Job, Slice, Turns
from services.runtime.errors import Expired, InvalidRequest, NotReady, Overloaded, TooLarge

PATIENCE = 20.0


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


@pytest.fixture
def turns(metrics):
    turns = Turns(100, metrics)
    yield turns
    turns.close()


def job_of(*slices, deadline=None, max_events=50):
    return Job(slices, max_events, time.monotonic() + PATIENCE if deadline is None else deadline)


def slice_of(*events, tokens=10, gate=None, log=None):
    def steps():
        for event in events:
            if gate is not None:
                gate.stop_here()
            if log is not None:
                log.append(event)
            yield [event]

    return Slice(tokens, steps)


async def everything(job):
    return [event async for event in job.events()]


async def test_events_arrive_in_order_and_the_queue_is_empty_afterwards(turns, metrics):
    job = job_of(slice_of("a", "b"), slice_of("c"))
    turns.submit(job)
    assert await everything(job) == ["a", "b", "c"]
    assert metrics.queue_tokens._value.get() == 0
    assert job.compute_seconds > 0


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
    assert log == ["long 0", "b 0", "c 0", "long 1", "b 1", "c 1", "long 2"]


async def test_a_cancelled_call_ends_within_the_step_it_is_in(turns, metrics):
    gate, log = Gate(), []
    job = job_of(slice_of(*range(40), gate=gate, log=log), slice_of(*range(5), log=log))
    turns.submit(job)
    await gate.reached()
    gate.let_go()
    await gate.reached()
    job.cancel()
    gate.let_go()
    after = job_of(slice_of("after"))
    turns.submit(after)
    assert await everything(after) == ["after"]
    assert log == [0, 1]  # the second step was under way
    assert metrics.dropped.labels("cancelled")._value.get() == 1
    assert metrics.queue_tokens._value.get() == 0


async def test_a_call_whose_deadline_passes_ends_within_the_step_it_is_in(turns, metrics):
    gate, log = Gate(), []
    job = job_of(slice_of(*range(40), gate=gate, log=log))
    turns.submit(job)
    await gate.reached()
    job.deadline = time.monotonic()
    gate.let_go()
    with pytest.raises(Expired):
        await everything(job)
    assert log == [0]
    assert metrics.dropped.labels("expired")._value.get() == 1


async def test_an_expired_call_is_never_begun(turns):
    log = []
    job = job_of(slice_of("never", log=log), deadline=time.monotonic() - 1)
    turns.submit(job)
    with pytest.raises(Expired):
        await everything(job)
    assert log == []


async def test_refuses_at_once_what_the_queue_cannot_hold(turns, metrics):
    with pytest.raises(TooLarge, match="101 tokens"):
        turns.submit(job_of(slice_of("x", tokens=101)))
    gate = Gate()
    first = job_of(slice_of("a", tokens=60, gate=gate))
    turns.submit(first)
    await gate.reached()
    second = job_of(slice_of("b", tokens=60))
    with pytest.raises(Overloaded) as refusal:
        turns.submit(second)
    assert 0.05 <= refusal.value.retry_after <= 30
    gate.let_go()
    await everything(first)
    turns.submit(second)
    assert await everything(second) == ["b"]
    assert metrics.queue_tokens._value.get() == 0


async def test_slices_that_have_run_make_room(turns):
    gate = Gate()
    first = job_of(slice_of("a", tokens=60), slice_of("b", tokens=40, gate=gate))
    turns.submit(first)
    await gate.reached()
    second = job_of(slice_of("c", tokens=60))
    turns.submit(second)
    gate.let_go()
    assert await everything(second) == ["c"]


async def test_a_reader_that_does_not_read_blocks_nobody(turns):
    unread = job_of(slice_of(*range(40)), max_events=40)
    turns.submit(unread)
    other = job_of(slice_of("other"))
    turns.submit(other)
    assert await everything(other) == ["other"]
    assert await everything(unread) == list(range(40))


async def test_what_a_slice_raises_reaches_its_reader_alone(turns, metrics):
    def failing():
        yield ["before"]
        raise InvalidRequest("no")

    bad, good = job_of(Slice(10, failing), slice_of("never")), job_of(slice_of("good"))
    turns.submit(bad)
    turns.submit(good)
    events = bad.events()
    assert await anext(events) == "before"
    with pytest.raises(InvalidRequest):
        await anext(events)
    assert await everything(good) == ["good"]
    assert metrics.queue_tokens._value.get() == 0


async def test_closing_ends_every_call(metrics):
    turns, gate = Turns(100, metrics), Gate()
    running, waiting = job_of(slice_of(*range(9), gate=gate)), job_of(slice_of("never"))
    turns.submit(running)
    turns.submit(waiting)
    await gate.reached()
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
