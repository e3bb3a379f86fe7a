import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from services.runtime.errors import Overloaded
from services.runtime.scheduler import ReuseLimits
from services.runtime.work import Done, FailureKind, ItemFailure, Reuse, Terms, Work
from tests.services.runtime.bench import Bench, settle

ORDERED = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 5)), min_size=1, max_size=12)


@settings(max_examples=60)
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


@settings(max_examples=40)
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
        st.tuples(st.just("turn")),
    ),
    max_size=40,
)


@settings(max_examples=120)
@given(
    ACTIONS, st.integers(1, 4), st.sets(st.integers(0, 30), max_size=4), st.booleans(), st.integers(0, 3), st.booleans()
)
def test_nothing_is_lost_answered_twice_or_computed_for_nobody(
    actions: list, rows: int, poisoned: set[int], deduplicate: bool, cache_items: int, settled: bool
):
    async def scenario() -> None:
        reuse = ReuseLimits(deduplicate, cache_items)
        broken: list[dict] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: broken.append(context))
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
            if action[0] == "turn":
                await asyncio.sleep(0)
            elif settled:
                await settle()
        await settle()
        bench.engine.release()
        await bench.scheduler.close()
        results = await asyncio.gather(*(task for task, _ in tasks), return_exceptions=True)
        assert not broken
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
        # Nothing is computed for nobody, and what fails is tried again in halves, down to one.
        assert len(computed) <= watch.begun * (1 + rows.bit_length() if poisoned else 1)
        assert watch.waiting == (0, 0)
        assert watch.most[0] <= 12
        assert len(bench.scheduler._cache) <= cache_items
        assert not bench.scheduler._in_flight._jobs

    asyncio.run(scenario())
