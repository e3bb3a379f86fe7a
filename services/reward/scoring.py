"""The scoring path: render, wait, compute; every item ends with a score or an error of its own."""

from __future__ import annotations

import hashlib
import math
import time
from array import array
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias

from palate.models.manifest import Truncation
from palate.models.rendering import Rendered, RenderingError, TooLong
from services.reward.calibration import MEAN, Aggregation, aggregated, calibrated
from services.reward.engine import Row
from services.reward.inputs import Item, Pair, render_items
from services.reward.metrics import ItemOutcome, ModelMetrics, RewardMetrics
from services.reward.model import RewardModel
from services.reward.scoring_queue import Members, ScoringQueue
from services.runtime.callers import current_caller
from services.runtime.errors import Expired
from services.runtime.tracing import current_span
from services.runtime.work import Done, Entry, FailureKind, ItemFailure, Outcome, Terms, Work


@dataclass(frozen=True, slots=True)
class ScoredItem:
    """An item's score.

    Attributes:
        score: Raw, finite; of an ensemble its members' aggregate.
        members: (M,) what it is made of; a model without members has one.
        calibrated: Standardised by the reference samples; None where the model stores none.
    """

    score: float
    members: tuple[float, ...]
    calibrated: float | None
    token_count: int
    truncated_tokens: int


@dataclass(frozen=True, slots=True)
class FailedItem:
    """Why an item has no score; `message` holds no user text."""

    outcome: ItemOutcome
    message: str


ItemResult: TypeAlias = ScoredItem | FailedItem


@dataclass(frozen=True, slots=True)
class Stages:
    """Where a request's time went, in seconds: the slowest item's wait, rendering, engine time of its batches."""

    queue: float
    tokenize: float
    compute: float


@dataclass(frozen=True, slots=True)
class Demand:
    """How items are to be scored.

    Attributes:
        deadline: `time.monotonic` seconds.
        aggregation: How members become one score.
        include_members: Whether replies hold them too.
    """

    truncation: Truncation
    priority: int
    deadline: float
    aggregation: Aggregation = MEAN
    include_members: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    """A single item in the queue; `entry.answer` is done when it can be read with `Scorer.read`."""

    entry: Entry[Row, Members]
    item: Rendered
    aggregation: Aggregation
    tokenize_seconds: float


class Scorer:
    """Scores items with one model. Belongs to one event loop."""

    def __init__(self, model: RewardModel, queue: ScoringQueue, metrics: RewardMetrics, rendering_threads: int) -> None:
        self._model = model
        self._metrics = metrics
        self._of_model = ModelMetrics(metrics, model.name)
        self._rendering = ThreadPoolExecutor(rendering_threads, thread_name_prefix="rendering")
        self._queue = queue
        self._group = queue.open(model)

    async def score(self, items: Sequence[Item], demand: Demand) -> tuple[list[ItemResult], Stages]:
        """One result per item, in their order.

        Raises:
            ServiceError: The request as a whole does not fit into the queue, or its time is over.
        """
        begin = time.time()
        rendered, tokenize = await self.render(items, demand.truncation)
        if time.monotonic() >= demand.deadline:
            raise Expired("the deadline passed while texts were turned into token ids; allow more time or send less")
        rows = list(dict.fromkeys(_row(item) for item in rendered if isinstance(item, Rendered)))
        outcomes = await self._queue.scheduler.run([self._work(row) for row in rows], _terms(demand))
        _trace(begin, tokenize, outcomes)
        by_row = dict(zip(rows, outcomes, strict=True))
        results = [
            self._result(by_row[_row(item)], item, demand.aggregation)
            if isinstance(item, Rendered)
            else _unrendered(item)
            for item in rendered
        ]
        self.count(results, deduplicated=sum(isinstance(item, Rendered) for item in rendered) - len(rows))
        return results, _stages(outcomes, tokenize)

    async def enter(self, pair: Pair, demand: Demand) -> Waiting | FailedItem:
        """Renders one item and puts it into the queue, once there is room."""
        (item,), seconds = await self.render([pair], demand.truncation)
        if isinstance(item, RenderingError):
            return _unrendered(item)
        row = _row(item)
        try:
            entry = await self._queue.scheduler.enter(self._work(row), _terms(demand))
        except Expired as error:
            return FailedItem(ItemOutcome.EXPIRED, str(error))
        return Waiting(entry, item, demand.aggregation, seconds)

    def read(self, waiting: Waiting) -> tuple[ItemResult, Stages]:
        """The result of an item that is done."""
        outcome = waiting.entry.answer.result()
        stages = _stages([outcome], waiting.tokenize_seconds)
        return self._result(outcome, waiting.item, waiting.aggregation), stages

    def forget(self, items: Sequence[Waiting], reason: str) -> None:
        """Drops what still waits of `items`; `reason` is "cancelled" or "expired"."""
        self._queue.scheduler.forget([item.entry for item in items], reason)

    async def render(
        self, items: Sequence[Item], truncation: Truncation
    ) -> tuple[list[Rendered | RenderingError], float]:
        """What the model would read for every item, and how many seconds that took."""
        begin = time.monotonic()
        rendered = await render_items(items, self._model.renderer, truncation, self._rendering)
        seconds = time.monotonic() - begin
        self._metrics.tokenized(seconds)
        return rendered, seconds

    def close(self) -> None:
        """Ends the rendering threads and lets the engine go; no call uses this any more."""
        self._rendering.shutdown(wait=True)
        self._queue.leave(self._model, self._group)

    def count(self, results: Sequence[ItemResult], deduplicated: int = 0) -> None:
        """Tells the metrics about items that are answered."""
        self._metrics.deduplicated(deduplicated)
        for result in results:
            if isinstance(result, ScoredItem):
                self._metrics.item_answered(ItemOutcome.SCORED)
                self._of_model.scored(result.score, result.calibrated)
            else:
                self._metrics.item_answered(result.outcome)

    def _work(self, row: Row) -> Work[Row]:
        return Work(row, len(row.token_ids), self._group, _digest(row))

    def _result(self, computed: Outcome[Members], item: Rendered, aggregation: Aggregation) -> ItemResult:
        if isinstance(computed, ItemFailure):
            expired = computed.kind is FailureKind.EXPIRED
            return FailedItem(ItemOutcome.EXPIRED if expired else ItemOutcome.FAILED, computed.message)
        score = aggregated(computed.value, aggregation)
        if not (math.isfinite(score) and all(map(math.isfinite, computed.value))):
            self._of_model.not_finite()
            return FailedItem(ItemOutcome.FAILED, "the model gives no finite score for this item")
        standardised = calibrated(score, self._model.manifest.calibration)
        return ScoredItem(score, computed.value, standardised, len(item.token_ids), item.truncated_tokens)


def _trace(begin: float, tokenize: float, outcomes: Sequence[Outcome[Members]]) -> None:
    """The stages of a call as spans: its texts into ids, and for each batch the wait for it and its time in the engine.

    A batch has the same number in the traces of all calls that shared it.
    """
    if (span := current_span()) is None:
        return
    admitted = begin + tokenize
    span.stage("tokenize", begin, admitted)
    batches = {done.batch: done for done in outcomes if isinstance(done, Done) and done.batch}
    for number, done in batches.items():
        started = admitted + done.queue_seconds
        span.stage("queue", admitted, started, batch=number)
        span.stage("compute", started, started + done.compute_seconds, batch=number)


def _unrendered(error: RenderingError) -> FailedItem:
    return FailedItem(ItemOutcome.TOO_LONG if isinstance(error, TooLong) else ItemOutcome.INVALID, str(error))


def _terms(demand: Demand) -> Terms:
    return Terms(demand.priority, demand.deadline, current_caller())


def _row(item: Rendered) -> Row:
    return Row(item.token_ids, item.segment_ids)


def _digest(row: Row) -> bytes:
    """Short, and equal for equal rows only: what is kept of a row beside its score."""
    return hashlib.sha256(array("q", (len(row.token_ids), *row.token_ids, *row.segment_ids))).digest()


def _stages(outcomes: Sequence[Outcome[Members]], tokenize: float) -> Stages:
    queue = max((outcome.queue_seconds for outcome in outcomes), default=0.0)
    batches = {outcome.batch: outcome.compute_seconds for outcome in outcomes if isinstance(outcome, Done)}
    return Stages(queue, tokenize, sum(batches.values()))
