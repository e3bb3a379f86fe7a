"""The scoring path with a real folder and a commanded engine: what happens when things go wrong inside."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from palate.v1.common_pb2 import Content
from services.reward.config import RewardConfig
from services.reward.metrics import ItemOutcome, RewardMetrics
from services.reward.model import RewardModel, load_model
from services.reward.scoring import Demand, FailedItem, ScoredItem, Scorer
from services.reward.scoring_queue import ScoringQueue
from services.runtime.errors import Expired, Overloaded
from tests.services.reward.commanded import Commanded


@dataclass
class Bench:
    scorer: Scorer
    engine: Commanded
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    async def score(self, *words: int, seconds: float = 60.0):
        """Scores completions of so many words; a row has five special tokens and prompt words more."""
        pairs = [(Content(text="an idea"), Content(text=" ".join(["plan"] * count))) for count in words]
        results, _ = await self.scorer.score(pairs, Demand("reject", 1, time.monotonic() + seconds))
        return results

    def count(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture(scope="module")
def model(exported_bert: Path) -> RewardModel:
    return load_model(RewardConfig(model=exported_bert, engine="fake"))


@pytest.fixture
async def bench(model: RewardModel, exported_bert: Path):
    engine, registry = Commanded(), CollectorRegistry()
    config = RewardConfig(model=exported_bert, max_queue_items=4, max_batch_items=8)
    queue = ScoringQueue(config, metrics := RewardMetrics(registry))
    scorer = Scorer(replace(model, engine=engine), queue, metrics, rendering_threads=1)
    yield Bench(scorer, engine, registry)
    engine.gate.set()
    await queue.close()
    scorer.close()


def outcomes(results: Sequence) -> list:
    return [result.score if isinstance(result, ScoredItem) else result.outcome for result in results]


async def hold(bench: Bench) -> asyncio.Task:
    """Occupies the engine, so that what follows waits in the queue."""
    bench.engine.gate.clear()
    bench.engine.began.clear()
    task = asyncio.create_task(bench.score(1))
    assert await asyncio.to_thread(bench.engine.began.wait, 60)
    while bench.count("palate_reward_queue_items") > 0:
        await asyncio.sleep(0)
    return task


async def test_poisoned_item_fails_alone_and_may_be_retried(bench: Bench):
    bench.engine.poisoned = {7}
    results = await bench.score(1, 2, 3)
    assert outcomes(results) == [6.0, ItemOutcome.FAILED, 8.0]
    assert isinstance(results[1], FailedItem)
    assert "MemoryError" in results[1].message
    assert bench.count("palate_reward_items_total", outcome="failed") == 1


async def test_score_that_is_no_number_is_a_failure(bench: Bench, model: RewardModel):
    bench.engine.not_a_number = {7}
    assert outcomes(await bench.score(1, 2, 3)) == [6.0, ItemOutcome.FAILED, 8.0]
    assert bench.count("palate_reward_score_count", model=model.name) == 2
    assert bench.count("palate_reward_non_finite_scores_total", model=model.name) == 1


async def test_equal_items_are_computed_once(bench: Bench):
    assert outcomes(await bench.score(2, 1, 2, 2)) == [7.0, 6.0, 7.0, 7.0]
    assert sorted(bench.engine.computed) == [6, 7]
    assert bench.count("palate_reward_items_deduplicated_total") == 2


async def test_a_score_that_is_known_is_not_computed_again_and_a_failure_is(bench: Bench):
    bench.engine.not_a_number, bench.engine.poisoned = {7}, {8}
    nothing = [6.0, ItemOutcome.FAILED, ItemOutcome.FAILED]
    assert outcomes(await bench.score(1, 2, 3)) == nothing
    bench.engine.computed.clear()
    bench.engine.not_a_number, bench.engine.poisoned = set(), set()
    assert outcomes(await bench.score(1, 2, 3)) == [6.0, 7.0, 8.0]
    assert sorted(bench.engine.computed) == [7, 8]
    assert bench.count("palate_reward_items_cached_total") == 1


async def test_calls_that_want_the_same_share_one_computation(bench: Bench):
    first = await hold(bench)
    leader, follower = asyncio.create_task(bench.score(2)), asyncio.create_task(bench.score(2))
    while bench.count("palate_reward_queue_items") < 2:
        await asyncio.sleep(0)
    leader.cancel()
    bench.engine.gate.set()
    assert outcomes(await follower) == [7.0]
    assert bench.engine.computed == [6, 7]
    assert bench.count("palate_reward_items_deduplicated_total") == 1
    await first


@pytest.mark.parametrize("reuse", [False, True])
async def test_cache_and_sharing_can_be_switched_off(model: RewardModel, exported_bert: Path, reuse: bool):
    engine, config = (
        Commanded(),
        RewardConfig(model=exported_bert, deduplicate=reuse, cache_items=9 * reuse),
    )
    queue = ScoringQueue(config, metrics := RewardMetrics(CollectorRegistry()))
    scorer = Scorer(replace(model, engine=engine), queue, metrics, rendering_threads=1)
    bench = Bench(scorer, engine)
    assert outcomes(await bench.score(1)) == outcomes(await bench.score(1))
    assert len(engine.computed) == (1 if reuse else 2)
    await queue.close()
    scorer.close()


async def test_full_queue_sheds_load(bench: Bench):
    first = await hold(bench)
    waiting = asyncio.create_task(bench.score(2, 3, 4))
    while bench.count("palate_reward_queue_items") < 3:
        await asyncio.sleep(0)
    with pytest.raises(Overloaded) as caught:
        await bench.score(5, 6)
    assert caught.value.retry_after
    bench.engine.gate.set()
    assert outcomes(await waiting) == [7.0, 8.0, 9.0]
    await first


async def test_cancelled_call_is_never_computed(bench: Bench):
    first = await hold(bench)
    waiting = asyncio.create_task(bench.score(2, 3))
    while bench.count("palate_reward_queue_items") < 2:
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    bench.engine.gate.set()
    await first
    assert bench.engine.computed == [6]
    assert bench.count("palate_reward_items_dropped_total", reason="cancelled") == 2


async def test_call_whose_time_is_over_is_not_computed(bench: Bench):
    with pytest.raises(Expired):
        await bench.score(1, seconds=0.0)
    assert bench.engine.computed == []


async def test_rendering_of_large_requests_goes_in_slices(model: RewardModel, exported_bert: Path):
    metrics = RewardMetrics(CollectorRegistry())
    queue = ScoringQueue(RewardConfig(model=exported_bert), metrics)
    scorer = Scorer(model, queue, metrics, rendering_threads=1)
    pairs = [(Content(text="an idea"), Content(text="plan " * (1 + n % 90))) for n in range(300)]
    rendered, _ = await scorer.render(pairs, "reject")
    assert [len(item.token_ids) for item in rendered] == [5 + 1 + n % 90 for n in range(300)]
    await queue.close()
    scorer.close()
