import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.reuse import Cache
from services.runtime.scheduler import ReuseLimits
from services.runtime.work import FailureKind, Reuse, Terms, Work
from tests.services.runtime.bench import FAR, Bench, settle, values


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
