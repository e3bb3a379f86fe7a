"""One stream with a commanded engine: order, time, room, and how it ends."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration
from prometheus_client import CollectorRegistry

from palate.v1 import reward_service_pb2 as reward
from services.reward.config import RewardConfig
from services.reward.metrics import ItemOutcome, RewardMetrics
from services.reward.model import RewardModel, load_model
from services.reward.scoring import Demand, ScoredItem, Scorer
from services.reward.scoring_queue import ScoringQueue
from services.reward.streaming import ItemStream, OpenStreams
from services.runtime.errors import InvalidRequest, NotReady
from tests.services.reward.commanded import Commanded


def item(number: int, words: int, timeout: float | None = None) -> reward.ScoreStreamRequest:
    """Scores 5 + `words`: five special tokens and prompt words come on top."""
    duration = None
    if timeout is not None:
        duration = Duration()
        duration.FromNanoseconds(round(timeout * 1e9))
    content = reward.ScoreItem(prompt={"text": "an idea"}, completion={"text": " ".join(["plan"] * words)})
    return reward.ScoreStreamRequest(item=reward.StreamItem(id=number, item=content, timeout=duration))


class Caller:
    """Sends what it is given, counts what was read of it, and keeps the stream open until told otherwise."""

    def __init__(self, *messages: reward.ScoreStreamRequest, stays: bool = False) -> None:
        self.messages = messages
        self.read = 0
        self.end = asyncio.Event()
        if not stays:
            self.end.set()

    async def __aiter__(self) -> AsyncIterator[reward.ScoreStreamRequest]:
        for message in self.messages:
            self.read += 1
            yield message
        await self.end.wait()


@dataclass
class Bench:
    scorer: Scorer
    engine: Commanded
    metrics: RewardMetrics
    registry: CollectorRegistry

    def stream(self, max_items: int = 100, max_seconds: float = 60.0) -> ItemStream:
        demand = Demand("reject", 1, float("inf"))
        return ItemStream(self.scorer, demand, max_items=max_items, max_seconds=max_seconds, metrics=self.metrics)

    def count(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0

    async def until(self, name: str, value: float) -> None:
        while self.count(name) != value:
            await asyncio.sleep(0)


@pytest.fixture(scope="module")
def model(bert: Path) -> RewardModel:
    return load_model(RewardConfig(model=bert, engine="fake"))


@pytest.fixture
async def bench(model: RewardModel, bert: Path):
    engine, registry = Commanded(), CollectorRegistry()
    config, metrics = RewardConfig(model=bert, max_queue_items=4, max_batch_items=1), RewardMetrics(registry)
    queue = ScoringQueue(config, metrics)
    scorer = Scorer(replace(model, engine=engine), queue, metrics, rendering_threads=1)
    yield Bench(scorer, engine, metrics, registry)
    engine.gate.set()
    await queue.close()
    scorer.close()
    assert registry.get_sample_value("palate_reward_stream_items") == 0


async def collect(stream: ItemStream, caller: Caller) -> list[tuple[int, float | ItemOutcome]]:
    return [
        (reply.number, reply.result.score if isinstance(reply.result, ScoredItem) else reply.result.outcome)
        async for reply in stream.replies(aiter(caller))
    ]


async def settle() -> None:
    """Lets everything run that can, the rendering thread included."""
    for _ in range(50):
        await asyncio.sleep(0)
        await asyncio.to_thread(lambda: None)


async def hold(bench: Bench) -> asyncio.Task:
    """Occupies the engine until its gate is set, so that what follows waits in the queue."""
    bench.engine.gate.clear()
    task = asyncio.create_task(collect(bench.stream(), Caller(item(0, 1))))
    assert await asyncio.to_thread(bench.engine.began.wait, 60)
    await bench.until("palate_reward_queue_items", 0)
    return task


async def test_the_most_urgent_item_is_answered_first(bench: Bench):
    first = await hold(bench)
    caller = Caller(item(8, 2, 50.0), item(9, 3, 5.0), item(10, 4, 20.0))
    task = asyncio.create_task(collect(bench.stream(), caller))
    await bench.until("palate_reward_queue_items", 3)
    bench.engine.gate.set()
    assert await task == [(9, 8.0), (10, 9.0), (8, 7.0)]
    assert await first == [(0, 6.0)]
    assert bench.count("palate_reward_items_total", outcome="scored") == 4


async def test_an_item_whose_time_is_over_is_answered_though_the_engine_is_busy(bench: Bench):
    held = await hold(bench)
    caller = Caller(item(1, 2, 0.05), item(2, 3), stays=True)
    replies = bench.stream().replies(aiter(caller))
    first = await anext(replies)
    assert (first.number, first.result.outcome) == (1, ItemOutcome.EXPIRED)
    bench.engine.gate.set()
    assert (await anext(replies)).number == 2
    await held
    assert bench.engine.computed == [6, 8]
    assert bench.count("palate_reward_items_dropped_total", reason="expired") == 1
    await replies.aclose()


async def test_an_item_whose_time_is_over_is_late_though_its_score_is_known(bench: Bench):
    assert await collect(bench.stream(), Caller(item(1, 2))) == [(1, 7.0)]
    assert await collect(bench.stream(), Caller(item(2, 2))) == [(2, 7.0)]
    assert bench.engine.computed == [7]
    assert await collect(bench.stream(), Caller(item(3, 2, 0.0))) == [(3, ItemOutcome.EXPIRED)]


async def test_the_server_has_the_last_word_on_time(bench: Bench):
    bench.engine.gate.clear()
    caller = Caller(item(0, 1), item(1, 2, 1e9), item(2, 2))
    assert await collect(bench.stream(max_seconds=0.05), caller) == [(n, ItemOutcome.EXPIRED) for n in range(3)]


async def test_a_full_stream_is_not_read(bench: Bench):
    bench.engine.gate.clear()
    caller = Caller(*(item(n, n) for n in range(1, 10)))
    task = asyncio.create_task(collect(bench.stream(max_items=3), caller))
    await bench.until("palate_reward_stream_items", 3)
    await settle()
    assert caller.read == 3
    bench.engine.gate.set()
    assert sorted(await task) == [(n, n + 5.0) for n in range(1, 10)]


async def test_a_caller_that_does_not_read_its_replies_is_not_read_either(bench: Bench):
    caller = Caller(*(item(n, n) for n in range(1, 10)))
    replies = bench.stream(max_items=3).replies(aiter(caller))
    await anext(replies)
    await settle()
    assert caller.read == 3  # the slot of the first reply is free when the next one is asked for
    assert len([reply async for reply in replies]) == 8


async def test_a_full_queue_makes_a_stream_wait_and_never_fail(bench: Bench):
    held = await hold(bench)
    callers = [Caller(*(item(n, n) for n in range(tens + 2, tens + 10))) for tens in (0, 10, 20)]
    tasks = [asyncio.create_task(collect(bench.stream(), caller)) for caller in callers]
    await bench.until("palate_reward_queue_items", 4)
    await settle()
    assert sum(caller.read for caller in callers) == 4 + 3  # queued, and one in the hand of each stream
    bench.engine.gate.set()
    for tens, task in zip((0, 10, 20), tasks, strict=True):
        assert sorted(await task) == [(n, n + 5.0) for n in range(tens + 2, tens + 10)]
    await held


async def test_an_item_may_expire_before_there_is_room(bench: Bench):
    await hold(bench)
    caller = Caller(*(item(n, n) for n in range(2, 6)), item(6, 6, 0.05), stays=True)
    replies = bench.stream().replies(aiter(caller))
    first = await anext(replies)
    assert (first.number, first.result.outcome) == (6, ItemOutcome.EXPIRED)
    await replies.aclose()


async def test_what_a_gone_caller_left_is_never_computed(bench: Bench):
    await hold(bench)
    replies = bench.stream().replies(aiter(Caller(item(2, 2), item(3, 3), stays=True)))
    task = asyncio.create_task(anext(replies))
    await bench.until("palate_reward_queue_items", 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bench.count("palate_reward_queue_items") == 0
    assert bench.count("palate_reward_items_dropped_total", reason="cancelled") == 2
    bench.engine.gate.set()
    assert await collect(bench.stream(), Caller(item(1, 4))) == [(1, 9.0)]
    assert bench.engine.computed == [6, 9]


async def test_an_answer_that_comes_as_the_stream_ends_is_nobodys(bench: Bench):
    broken: list[dict] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: broken.append(context))
    held = await hold(bench)
    stream = bench.stream()
    replies = stream.replies(aiter(Caller(item(1, 3), stays=True)))
    reading = asyncio.ensure_future(anext(replies))
    await bench.until("palate_reward_queue_items", 1)
    (opened,) = stream._open.values()
    opened.waiting.entry.answer.set_result(None)  # its callback runs in the next turn of the loop
    stream._drop_open()
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    bench.engine.gate.set()
    await held
    assert not broken


async def test_bad_items_fail_alone(bench: Bench):
    bench.engine.gate.clear()
    bad = [item(2, 0), item(3, 400), item(1, 2), item(4, 1, -1.0), reward.ScoreStreamRequest(item={"id": 5})]
    caller = Caller(item(1, 1), *bad, item(6, 2), stays=True)
    replies = bench.stream().replies(aiter(caller))
    outcomes = [(reply.number, reply.result.outcome) for reply in [await anext(replies) for _ in bad]]
    invalid, too_long = ItemOutcome.INVALID, ItemOutcome.TOO_LONG
    assert outcomes == [(2, invalid), (3, too_long), (1, invalid), (4, invalid), (5, invalid)]
    bench.engine.gate.set()
    assert [(await anext(replies)).number for _ in range(2)] == [1, 6]
    await replies.aclose()


async def test_an_id_is_free_again_after_its_answer(bench: Bench):
    assert await collect(bench.stream(max_items=1), Caller(item(1, 1), item(1, 2))) == [(1, 6.0), (1, 7.0)]


async def test_a_stopped_stream_answers_what_it_has_read_and_says_that_it_ends(bench: Bench):
    bench.engine.gate.clear()
    caller, stream = Caller(item(1, 1), item(2, 2), stays=True), bench.stream()
    replies = stream.replies(aiter(caller))
    first = asyncio.create_task(anext(replies))
    await bench.until("palate_reward_stream_items", 2)
    await settle()
    stream.stop()
    bench.engine.gate.set()
    assert ((await first).number, (await anext(replies)).number) == (1, 2)
    with pytest.raises(NotReady, match="open another"):
        await anext(replies)


async def test_streams_stop_when_they_are_old_and_when_the_server_drains(bench: Bench):
    old, young, late = bench.stream(), bench.stream(), bench.stream()
    with pytest.raises(NotReady), OpenStreams(0.01, 1000.0, bench.metrics).holding(old):
        await collect(old, Caller(stays=True))
    streams = OpenStreams(1000.0, 1000.0, bench.metrics)
    with streams.holding(young):
        task = asyncio.create_task(collect(young, Caller(stays=True)))
        await settle()
        assert bench.count("palate_reward_streams") == 1
        streams.drain()
        with pytest.raises(NotReady):
            await task
    with pytest.raises(NotReady), streams.holding(late):
        await collect(late, Caller(item(1, 1)))
    assert bench.count("palate_reward_streams") == 0


@pytest.mark.parametrize("message", [reward.ScoreStreamRequest(options={}), reward.ScoreStreamRequest()])
async def test_a_message_that_is_no_item_ends_the_stream_after_the_items_before_it(bench: Bench, message):
    replies = bench.stream().replies(aiter(Caller(item(1, 1), message, item(2, 2))))
    assert (await anext(replies)).number == 1
    with pytest.raises(InvalidRequest, match="holds an item"):
        await anext(replies)


async def test_a_failing_engine_fails_its_items_alone(bench: Bench):
    bench.engine.poisoned = {7}
    results = await collect(bench.stream(), Caller(item(1, 1), item(2, 2), item(3, 3)))
    assert sorted(results) == [(1, 6.0), (2, ItemOutcome.FAILED), (3, 8.0)]
