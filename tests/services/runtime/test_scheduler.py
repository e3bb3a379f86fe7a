import asyncio
import threading
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.runtime.batching import BatchLimits
from services.runtime.errors import NotReady, Overloaded, TooLarge
from services.runtime.queue_admission import QueueLimits
from services.runtime.reuse import Cache
from services.runtime.scheduler import ReuseLimits, Scheduler
from services.runtime.work import Done, FailureKind, ItemFailure, Reuse, Terms, Work

FAR = 1e9


class Engine:
    """Computes a batch only when told to; remembers every batch."""

    def __init__(self, poisoned: Sequence[int] = ()) -> None:
        self.batches: list[list[int]] = []
        self.poisoned = set(poisoned)
        self._gate = threading.Semaphore(0)
        self._started = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def __call__(self, group: str, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self._loop.call_soon_threadsafe(self._started.set)
        assert self._gate.acquire(timeout=60), "the test forgot to release the engine"
        if self.poisoned & set(items):
            raise ArithmeticError("poison")
        return [item * 10 for item in items]

    def release(self, batches: int = 100_000) -> None:
        self._gate.release(batches)

    async def started(self) -> None:
        """Waits until the engine holds a batch."""
        await asyncio.wait_for(self._started.wait(), 60)


class Watch:
    """Counts what the scheduler reports."""

    def __init__(self) -> None:
        self.waiting = (0, 0)
        self.most = (0, 0)
        self.dropped = {"cancelled": 0, "expired": 0}
        self.batches: list[tuple[int, int, int]] = []
        self.begun = 0
        self.reused = {Reuse.CACHED: 0, Reuse.DEDUPLICATED: 0}

    def queue_changed(self, items: int, tokens: int) -> None:
        self.waiting = (items, tokens)
        self.most = (max(self.most[0], items), max(self.most[1], tokens))

    def batch_done(self, rows: int, tokens: int, padded_tokens: int, seconds: float) -> None:
        assert seconds >= 0
        self.batches.append((rows, tokens, padded_tokens))

    def item_started(self, queue_seconds: float) -> None:
        assert queue_seconds >= 0
        self.begun += 1

    def items_dropped(self, reason: str, count: int) -> None:
        self.dropped[reason] += count

    def item_reused(self, how: Reuse) -> None:
        self.reused[how] += 1


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """A scheduler with a commanded engine; must be made inside an event loop."""

    def __init__(
        self,
        *,
        rows: int = 4,
        tokens: int = 100,
        items: int = 1000,
        poisoned: Sequence[int] = (),
        reuse: ReuseLimits = ReuseLimits(),
    ) -> None:
        self.engine, self.watch, self.clock = Engine(poisoned), Watch(), Clock()
        self.scheduler: Scheduler[int, int] = Scheduler(
            self.engine, QueueLimits(items, 10_000), BatchLimits(rows, tokens), self.watch, reuse, self.clock
        )

    def submit(
        self, *items: int, size: int = 10, priority: int = 0, deadline: float = FAR, caller: str = ""
    ) -> asyncio.Task:
        works = [Work(item, size, "group", item) for item in items]
        return asyncio.create_task(self.scheduler.run(works, Terms(priority, deadline, caller)))

    async def occupy(self) -> asyncio.Task:
        """Gives the engine a batch that it holds until released, so that what follows waits."""
        task = self.submit(0)
        await self.engine.started()
        return task


def values(outcomes: Sequence) -> list:
    return [outcome.value if isinstance(outcome, Done) else outcome.kind for outcome in outcomes]


async def settle() -> None:
    """Lets tasks that were just made or cancelled run."""
    for _ in range(4):
        await asyncio.sleep(0)


async def test_results_come_back_in_the_order_of_the_items():
    bench = Bench(rows=3)
    bench.engine.release()
    assert values(await bench.submit(*range(1, 9))) == [item * 10 for item in range(1, 9)]
    assert await bench.scheduler.run([], Terms(0, FAR)) == []
    await bench.scheduler.close()


async def test_idle_scheduler_computes_at_once_and_busy_one_batches_what_came_meanwhile():
    bench = Bench()
    first = await bench.occupy()
    assert bench.engine.batches == [[0]]
    others = [bench.submit(item) for item in (1, 2, 3)]
    await settle()
    bench.engine.release()
    await asyncio.gather(first, *others)
    assert bench.engine.batches == [[0], [1, 2, 3]]
    assert bench.watch.batches == [(1, 10, 10), (3, 30, 30)]
    await bench.scheduler.close()


ORDERED = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 5)), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(ORDERED, st.integers(1, 4))
def test_priority_first_then_the_earliest_deadline_then_arrival(works: list[tuple[int, int]], rows: int):
    async def scenario() -> None:
        bench = Bench(rows=rows)
        tasks = [await bench.occupy()]
        for item, (priority, deadline) in enumerate(works, 1):
            tasks.append(bench.submit(item, priority=priority, deadline=1000.0 + deadline))
        await settle()
        bench.engine.release()
        await asyncio.gather(*tasks)
        await bench.scheduler.close()
        order = [item for batch in bench.engine.batches[1:] for item in batch]
        assert order == sorted(order, key=lambda item: (-works[item - 1][0], works[item - 1][1], item))

    asyncio.run(scenario())


@pytest.mark.parametrize("cancelled", [0, 1, 2])
async def test_cancelled_work_is_dropped_before_compute(cancelled: int):
    bench = Bench(rows=1)
    tasks = [await bench.occupy(), *(bench.submit(10 * n + 1, 10 * n + 2) for n in range(3))]
    await settle()
    tasks[cancelled + 1].cancel()
    await settle()
    bench.engine.release()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    computed = {item for batch in bench.engine.batches for item in batch}
    assert computed == {0} | {10 * n + k for n in range(3) for k in (1, 2) if n != cancelled}
    assert isinstance(results[cancelled + 1], asyncio.CancelledError)
    assert bench.watch.dropped["cancelled"] == 2
    await bench.scheduler.close()


async def test_cancelling_what_is_being_computed_harms_nobody():
    bench = Bench()
    first = await bench.occupy()
    follower = bench.submit(1)
    await settle()
    first.cancel()
    await settle()
    bench.engine.release()
    assert values(await follower) == [10]
    assert bench.watch.dropped["cancelled"] == 0
    await bench.scheduler.close()


async def test_expired_work_is_answered_and_never_computed():
    bench = Bench(rows=1)
    first = await bench.occupy()
    late, timely = bench.submit(1, 2, deadline=5.0), bench.submit(3, deadline=50.0)
    await settle()
    bench.clock.now = 5.0
    bench.engine.release()
    assert values(await late) == [FailureKind.EXPIRED] * 2
    assert values(await timely) == [30]
    assert bench.engine.batches == [[0], [3]]
    assert bench.watch.dropped["expired"] == 2
    assert (await late)[0].queue_seconds == 5.0
    await asyncio.gather(first)
    await bench.scheduler.close()


async def test_only_the_poisoned_item_fails():
    bench = Bench(rows=4, poisoned=[2])
    first = await bench.occupy()
    tasks = [bench.submit(item) for item in (1, 2, 3)]
    await settle()
    bench.engine.release()
    await asyncio.gather(first)
    outcomes = [(await task)[0] for task in tasks]
    assert values(outcomes) == [10, FailureKind.FAILED, 30]
    assert "ArithmeticError" in outcomes[1].message
    assert bench.engine.batches == [[0], [1, 2, 3], [1], [2], [3]]
    assert values(await bench.submit(4)) == [40]
    await bench.scheduler.close()


async def test_engine_that_gives_too_few_results_fails_the_items():
    watch = Watch()
    scheduler: Scheduler[int, int] = Scheduler(lambda _, items: [], QueueLimits(9, 99), BatchLimits(2, 50), watch)
    outcomes = await scheduler.run([Work(1, 1, "", 1), Work(2, 1, "", 2)], Terms(0, FAR))
    assert values(outcomes) == [FailureKind.FAILED] * 2
    await scheduler.close()


async def test_full_queue_refuses_and_says_when_to_come_back():
    bench = Bench(items=3)
    first = await bench.occupy()
    waiting = bench.submit(1, 2)
    await settle()
    with pytest.raises(Overloaded) as caught:
        await bench.submit(3, 4)
    assert caught.value.retry_after is not None
    assert caught.value.retry_after > 0
    fits = bench.submit(5)
    await settle()
    bench.engine.release()
    assert values(await waiting) == [10, 20]
    assert values(await fits) == [50]
    assert bench.watch.most[0] <= 3
    await asyncio.gather(first)
    await bench.scheduler.close()


async def test_queue_is_bounded_in_tokens_too():
    bench = Bench()
    first = await bench.occupy()
    waiting = [bench.submit(item, size=100) for item in range(1, 51)]
    waiting += [bench.submit(item, size=100, caller="other") for item in range(51, 101)]
    await settle()
    with pytest.raises(Overloaded):
        await bench.submit(500, size=1, caller="third")
    bench.engine.release()
    await asyncio.gather(first, *waiting)
    await bench.scheduler.close()


async def test_what_could_never_fit_is_refused_for_good():
    bench = Bench(items=3)
    with pytest.raises(TooLarge):
        await bench.submit(1, 2, 3, 4)
    with pytest.raises(TooLarge):
        await bench.submit(1, size=10_001)
    await bench.scheduler.close()


async def test_an_item_longer_than_a_batch_goes_alone():
    bench = Bench(tokens=100)
    first = await bench.occupy()
    tasks = [bench.submit(1, size=300), bench.submit(2, size=300), bench.submit(3, size=90)]
    await settle()
    bench.engine.release()
    await asyncio.gather(first, *tasks)
    assert bench.engine.batches == [[0], [1], [2], [3]]
    await bench.scheduler.close()


async def test_retry_estimate_follows_the_speed_of_the_engine():
    waits = []
    for seconds in (1.0, 4.0):
        bench = Bench(items=4)
        first = await bench.occupy()
        bench.clock.now += seconds  # the batch of ten tokens took that long
        second = bench.submit(1)
        await settle()
        bench.engine.release(1)
        await first
        waiting = bench.submit(2, 3, 4, 5)
        await settle()
        with pytest.raises(Overloaded) as caught:
            await bench.submit(6, 7)
        waits.append(caught.value.retry_after)
        bench.engine.release()
        await asyncio.gather(second, waiting)
        await bench.scheduler.close()
    assert waits == [2.0, 8.0]


async def test_close_answers_everything_accepted_and_takes_nothing_more():
    bench = Bench(rows=1)
    tasks = [await bench.occupy(), *(bench.submit(item) for item in (1, 2, 3))]
    await settle()
    closing = asyncio.create_task(bench.scheduler.close())
    await settle()
    with pytest.raises(NotReady):
        await bench.submit(9)
    assert not closing.done()
    bench.engine.release()
    await closing
    assert [values(task.result()) for task in tasks] == [[0], [10], [20], [30]]


async def test_close_without_work_ends():
    await asyncio.wait_for(Bench().scheduler.close(), 10)


async def test_the_next_batch_lies_ready_and_may_still_change():
    """The engine takes it without asking the loop: nothing runs here between its batches."""
    bench = Bench(rows=2)
    first = await bench.occupy()
    tasks = [bench.submit(item, deadline=100.0 + item) for item in (1, 2, 3)]
    await settle()
    urgent = bench.submit(4, deadline=50.0)
    tasks[0].cancel()
    await settle()
    bench.engine.release()
    while len(bench.engine.batches) < 2:  # blocks the loop on purpose
        threading.Event().wait(0.001)
    assert bench.engine.batches[1] == [4, 2]
    await asyncio.gather(first, urgent, *tasks[1:])
    await bench.scheduler.close()


async def test_a_ready_batch_is_looked_at_again_when_it_begins():
    bench = Bench(rows=2)
    first = await bench.occupy()
    late, timely = bench.submit(1, deadline=5.0), bench.submit(2, deadline=50.0)
    await settle()
    bench.clock.now = 6.0
    bench.engine.release()
    assert values(await late) == [FailureKind.EXPIRED]
    assert values(await timely) == [20]
    assert bench.engine.batches == [[0], [2]]
    await first
    await bench.scheduler.close()


async def learn(bench: Bench, seconds: float, size: int = 10) -> None:
    """Lets the engine take so long for an item that another waits for."""
    first, second = bench.submit(1001, size=size), bench.submit(1002, size=size, deadline=FAR + 1)
    await bench.engine.started()
    bench.clock.now += seconds
    bench.engine.release(1)
    await first
    bench.engine.release(1)
    await second


async def test_what_cannot_end_in_time_is_not_begun():
    bench = Bench(rows=1)
    await learn(bench, 4.0)
    computed = len(bench.engine.batches)
    assert values(await bench.submit(1, deadline=bench.clock.now + 1.0)) == [FailureKind.EXPIRED]
    assert len(bench.engine.batches) == computed
    bench.engine.release()
    assert values(await bench.submit(2, deadline=bench.clock.now + 100.0)) == [20]
    await bench.scheduler.close()


async def test_what_would_be_late_behind_others_is_refused_and_a_stream_waits():
    bench = Bench(rows=1)
    await learn(bench, 40.0)
    waiting = bench.submit(1, 2, 3, 4, 5, priority=1)
    await settle()
    soon = bench.clock.now + 120.0
    with pytest.raises(Overloaded) as caught:
        await bench.submit(6, deadline=soon)
    assert caught.value.retry_after is not None
    assert caught.value.retry_after > 1.0
    entering = asyncio.create_task(bench.scheduler.enter(Work(7, 10, "group", 7), Terms(0, soon)))
    urgent = bench.submit(8, priority=2, deadline=soon)  # at most one item goes before it
    await settle()
    assert not entering.done()
    bench.engine.release()
    assert values([await (await entering).answer]) == [70]
    assert values(await urgent) == [80]
    await waiting
    await bench.scheduler.close()


async def test_a_batch_holds_one_group():
    groups: list[tuple[str, list[int]]] = []

    def engine(group: str, items: Sequence[int]) -> list[str]:
        groups.append((group, list(items)))
        return [f"{group}{item}" for item in items]

    scheduler: Scheduler[int, str] = Scheduler(engine, QueueLimits(99, 999), BatchLimits(8, 999), Watch())
    works = [Work(item, 10, group, item) for item in range(4) for group in "ab"]
    outcomes = await scheduler.run(works, Terms(0, FAR))
    assert values(outcomes) == [f"{work.group}{work.item}" for work in works]
    assert groups == [("a", [0, 1, 2, 3]), ("b", [0, 1, 2, 3])]
    await scheduler.close()


@pytest.mark.parametrize("cancelled", [0, 1, 2])
@pytest.mark.parametrize("begun", [False, True])
async def test_equal_items_share_a_computation_and_whoever_leaves_harms_nobody(cancelled: int, begun: bool):
    bench = Bench()
    first = None if begun else await bench.occupy()
    tasks = [bench.submit(1)]
    if begun:
        await bench.engine.started()
    tasks += [bench.submit(1), bench.submit(1)]
    await settle()
    tasks.pop(cancelled).cancel()
    await settle()
    bench.engine.release()
    assert [values(await task) for task in tasks] == [[10], [10]]
    assert bench.engine.batches == ([[1]] if begun else [[0], [1]])
    assert bench.watch.reused[Reuse.DEDUPLICATED] == 2
    if first is not None:
        await first
    await bench.scheduler.close()
    assert bench.watch.waiting == (0, 0)


async def test_a_follower_in_more_hurry_makes_the_shared_item_urgent():
    bench = Bench(rows=1)
    first = await bench.occupy()
    tasks = [bench.submit(item, deadline=100.0 + item) for item in (1, 2, 3)]
    await settle()
    tasks += [bench.submit(3, deadline=50.0), bench.submit(2, priority=1, deadline=500.0)]
    await settle()
    bench.engine.release()
    await asyncio.gather(first, *tasks)
    assert bench.engine.batches == [[0], [2], [3], [1]]
    await bench.scheduler.close()


async def test_a_shared_item_lives_as_long_as_anybody_has_time():
    bench = Bench()
    first = await bench.occupy()
    hasty, patient = bench.submit(1, deadline=5.0), bench.submit(1, deadline=50.0)
    await settle()
    bench.clock.now = 6.0
    bench.engine.release()
    await first
    assert values(await patient) == [10]
    assert (await hasty)[0].queue_seconds >= 0
    await bench.scheduler.close()


async def test_what_everybody_left_while_it_ran_is_computed_anew():
    bench = Bench()
    only = bench.submit(1)
    await bench.engine.started()
    only.cancel()
    await settle()
    again = bench.submit(1)
    await settle()
    bench.engine.release()
    assert values(await again) == [10]
    assert bench.engine.batches == [[1], [1]]
    await bench.scheduler.close()


async def test_known_results_are_given_at_once_and_failures_are_not_kept():
    bench = Bench(poisoned=[3], reuse=ReuseLimits(cache_items=2, keep=lambda value: value != 40))
    bench.engine.release()
    for item in (1, 2, 3, 4):
        await bench.submit(item)
    bench.engine.poisoned, computed = set(), len(bench.engine.batches)
    assert values(await bench.submit(1, 2, 3, 4)) == [10, 20, 30, 40]
    assert sorted(item for batch in bench.engine.batches[computed:] for item in batch) == [3, 4]
    assert bench.watch.reused[Reuse.CACHED] == 2
    done = (await bench.submit(3))[0]
    assert (done.value, done.queue_seconds, done.compute_seconds, done.batch) == (30, 0.0, 0.0, 0)
    assert values(await bench.submit(3, deadline=bench.clock.now)) == [FailureKind.EXPIRED]
    other = await bench.scheduler.run([Work(3, 10, "another group", 3)], Terms(0, FAR))
    assert other[0].batch > 0
    await bench.scheduler.close()


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(0, 5))
def test_the_cache_is_bounded_and_keeps_what_was_used_last(keys: list[int], size: int):
    cache: Cache[int] = Cache(size)
    recent: list[int] = []
    for key in keys:
        work = Work(key, 1, "group", key)
        assert (cache.find(work) is not None) == (key in recent)
        cache.put(work, key * 10)
        recent = [*(other for other in recent if other != key), key][-size:] if size else []
        assert len(cache) == len(recent)
        assert all(cache._values[("group", other)] == other * 10 for other in recent)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 100), st.integers(1, 9)), min_size=1, max_size=60),
    st.integers(1, 4),
)
def test_nobody_gets_ahead_by_more_than_the_quantum(drawn: list[tuple[str, int, int]], rows: int):
    """Of those who wait, the least served is at most a quantum and one item behind; within it deadlines decide."""

    async def scenario() -> None:
        bench = Bench(rows=rows)
        tasks = [await bench.occupy()]
        for item, (caller, size, deadline) in enumerate(drawn, 1):
            tasks.append(bench.submit(item, size=size, deadline=1000.0 + deadline, caller=caller))
        await settle()
        bench.engine.release()
        await asyncio.gather(*tasks)
        await bench.scheduler.close()
        check(bench.engine.batches[1:])

    def check(batches: list[list[int]]) -> None:
        served = dict.fromkeys("abc", 0)
        left = dict(enumerate(drawn, 1))
        for batch in batches:
            waiting = {caller for caller, _, _ in left.values()}
            least = min(served[caller] for caller in waiting)
            fair = [(left[item][2], item) for item in left if served[left[item][0]] <= least + 400]
            assert (left[batch[0]][2], batch[0]) == min(fair)
            outside = {caller for caller, _, _ in (left[item] for item in left if item not in batch)}
            for item in batch:
                caller, size, _ = left.pop(item)
                served[caller] += size
                assert served[caller] <= least + 400 + 100 or not outside - {caller}

    asyncio.run(scenario())


SUBMIT = st.tuples(
    st.just("submit"),
    st.lists(st.integers(0, 30), min_size=1, max_size=5, unique=True),  # items, some of them wanted more than once
    st.integers(0, 2),  # priority
    st.integers(1, 20),  # seconds until the deadline
    st.sampled_from("abc"),  # caller
)
ACTIONS = st.lists(
    st.one_of(
        SUBMIT,
        st.tuples(st.just("cancel"), st.integers(0, 20)),
        st.tuples(st.just("release"), st.integers(1, 3)),
        st.tuples(st.just("pass"), st.integers(1, 10)),
    ),
    max_size=25,
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ACTIONS, st.integers(1, 4), st.sets(st.integers(0, 30), max_size=4), st.booleans(), st.integers(0, 3))
def test_nothing_is_lost_answered_twice_or_computed_for_nobody(
    actions: list, rows: int, poisoned: set[int], deduplicate: bool, cache_items: int
):
    async def scenario() -> None:
        reuse = ReuseLimits(deduplicate, cache_items)
        bench = Bench(rows=rows, items=12, poisoned=list(poisoned), reuse=reuse)
        tasks: list[tuple[asyncio.Task, list[int]]] = []
        for action in actions:
            if action[0] == "submit":
                _, items, priority, timeout, caller = action
                works = [Work(item, 1 + 5 * item, "group", item) for item in items]
                run = bench.scheduler.run(works, Terms(priority, bench.clock.now + timeout, caller))
                tasks.append((asyncio.create_task(run), items))
            elif action[0] == "cancel" and tasks:
                tasks[action[1] % len(tasks)][0].cancel()
            elif action[0] == "release":
                bench.engine.release(action[1])
            elif action[0] == "pass":
                bench.clock.now += action[1]
            await settle()
        bench.engine.release()
        await bench.scheduler.close()
        results = await asyncio.gather(*(task for task, _ in tasks), return_exceptions=True)
        check(bench, [items for _, items in tasks], results)

    def check(bench: Bench, requests: list[list[int]], results: list) -> None:
        computed = [item for batch in bench.engine.batches for item in batch]
        answered = admitted = 0
        for items, result in zip(requests, results, strict=True):
            if isinstance(result, asyncio.CancelledError | Overloaded):
                continue
            assert len(result) == len(items)
            for item, outcome in zip(items, result, strict=True):
                answered += 1
                if isinstance(outcome, Done):
                    assert outcome.value == item * 10
                    assert item in computed
                    assert item not in poisoned
                else:
                    assert isinstance(outcome, ItemFailure)
                    assert outcome.kind is FailureKind.EXPIRED or item in poisoned
        for batch in bench.engine.batches:
            assert len(set(batch)) == len(batch) <= rows or not deduplicate
            assert len(batch) == 1 or len(batch) * max(1 + 5 * item for item in batch) <= 100
        # Every admitted item was known, or went to the engine, or was dropped before it; no item did two of these.
        admitted = sum(len(items) for items, result in zip(requests, results, strict=True)
                       if not isinstance(result, Overloaded))  # fmt: skip
        watch = bench.watch
        assert watch.begun + sum(watch.dropped.values()) + watch.reused[Reuse.CACHED] <= admitted
        assert watch.begun + watch.dropped["expired"] + watch.reused[Reuse.CACHED] >= answered
        # Nothing is computed for nobody, and what fails is tried once more, alone.
        assert len(computed) <= 2 * watch.begun if poisoned else len(computed) <= watch.begun
        assert watch.waiting == (0, 0)
        assert watch.most[0] <= 12
        assert len(bench.scheduler._cache) <= cache_items
        assert not bench.scheduler._in_flight._jobs

    asyncio.run(scenario())
