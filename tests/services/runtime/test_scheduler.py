import asyncio
import threading
from collections.abc import Sequence

import pytest

from services.runtime.batching import BatchLimits
from services.runtime.errors import NotReady, Overloaded, TooLarge
from services.runtime.queue_admission import QueueLimits
from services.runtime.scheduler import Scheduler
from services.runtime.work import FailureKind, Terms, Work
from tests.services.runtime.bench import FAR, Bench, Watch, settle, values


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
    assert bench.watch.running == [10, 0, 30, 0]


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


async def test_who_gives_up_just_when_his_time_is_over_leaves_once():
    bench, loop = Bench(rows=1), asyncio.get_running_loop()
    broken: list[dict] = []
    loop.set_exception_handler(lambda _, context: broken.append(context))
    first = await bench.occupy()
    hurried = bench.submit(1, 2, deadline=5.0)
    await settle()
    bench.clock.now = 5.0
    other = bench.submit(3, priority=1)  # a plan is made in this turn of the loop, and finds answers that are cancelled
    loop.call_soon(hurried.cancel)
    await settle()
    bench.engine.release()
    assert values(await other) == [30]
    assert isinstance((await asyncio.gather(hurried, return_exceptions=True))[0], asyncio.CancelledError)
    await asyncio.gather(first)
    assert not broken
    assert bench.watch.dropped == {"cancelled": 2, "expired": 0}
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
    assert bench.engine.batches == [[0], [1, 2, 3], [1], [2, 3], [2], [3]]
    assert values(await bench.submit(4)) == [40]
    await bench.scheduler.close()


async def test_one_poisoned_item_costs_few_batches():
    bench = Bench(rows=64, tokens=1000, poisoned=[64])
    first = await bench.occupy()
    tasks = [bench.submit(item) for item in range(1, 65)]
    await settle()
    bench.engine.release()
    await asyncio.gather(first)
    outcomes = [(await task)[0] for task in tasks]
    assert values(outcomes) == [*(10 * item for item in range(1, 64)), FailureKind.FAILED]
    assert [len(batch) for batch in bench.engine.batches] == [1, 64, 32, 32, 16, 16, 8, 8, 4, 4, 2, 2, 1, 1]
    await bench.scheduler.close()


async def test_engine_that_gives_too_few_results_fails_the_items():
    watch = Watch()
    scheduler: Scheduler[int, int] = Scheduler(
        lambda group, items, alone: [], QueueLimits(9, 99), BatchLimits(2, 50), watch
    )
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
    bench = Bench()
    await asyncio.wait_for(bench.scheduler.close(), 10)
    with pytest.raises(NotReady):
        await bench.submit(1)
    assert bench.engine.batches == []


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

    def engine(group: str, items: Sequence[int], alone: bool) -> list[str]:
        groups.append((group, list(items)))
        return [f"{group}{item}" for item in items]

    scheduler: Scheduler[int, str] = Scheduler(engine, QueueLimits(99, 999), BatchLimits(8, 999), Watch())
    works = [Work(item, 10, group, item) for item in range(4) for group in "ab"]
    outcomes = await scheduler.run(works, Terms(0, FAR))
    assert values(outcomes) == [f"{work.group}{work.item}" for work in works]
    assert groups == [("a", [0, 1, 2, 3]), ("b", [0, 1, 2, 3])]
    await scheduler.close()


async def test_lanes_compute_side_by_side_and_every_item_is_answered_once():
    together = threading.Barrier(2, timeout=60)  # breaks, and fails every item, where one thread had to do for both
    threads: set[str] = set()

    def engine(group: str, items: Sequence[int], alone: bool) -> list[int]:
        together.wait()
        threads.add(threading.current_thread().name + str(threading.get_ident()))
        return [item * 10 for item in items]

    scheduler: Scheduler[int, int] = Scheduler(engine, QueueLimits(99, 999), BatchLimits(1, 999), Watch(), lanes=2)
    outcomes = await scheduler.run([Work(item, 10, "a", item) for item in range(6)], Terms(0, FAR))
    assert values(outcomes) == [0, 10, 20, 30, 40, 50]
    assert len(threads) == 2
    await scheduler.close()
