"""The reward service's RPCs: checks a request as a whole, scores its items, answers."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any, TypeAlias

import grpc

from palate.models.rendering import RenderingError
from palate.v1 import reward_service_pb2 as reward
from palate.v1.reward_service_pb2_grpc import RewardServiceServicer
from services.reward import replies
from services.reward.config import RewardConfig
from services.reward.inputs import Pair
from services.reward.metrics import RewardMetrics
from services.reward.options import demand_of
from services.reward.registry import Registry
from services.reward.scoring import ItemResult
from services.reward.streaming import ItemStream, OpenStreams
from services.reward.unary import UnaryScoring
from services.runtime.deadlines import deadline_of
from services.runtime.errors import Expired, InvalidRequest

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class RewardServicer(RewardServiceServicer):
    """Answers for the models of `registry`; a call keeps the model it began with."""

    def __init__(self, registry: Registry, config: RewardConfig, metrics: RewardMetrics) -> None:
        self._registry = registry
        self._unary = UnaryScoring(registry, config)
        self._metrics = metrics
        self._max_items = config.max_items
        self._max_stream_items = config.max_stream_items
        self._max_seconds = config.max_deadline_seconds
        oldest = 0.9 * min(config.max_connection_age_seconds, config.connection_grace_seconds)
        self._max_idle = config.stream_idle_seconds
        self._streams = OpenStreams(oldest, self._max_idle, metrics)

    async def Score(self, request: reward.ScoreRequest, context: Context) -> reward.ScoreResponse:  # noqa: N802
        """Scores every item."""
        pairs = [(item.prompt, item.completion) for item in request.items]
        return replies.score_response(*await self._score(pairs, request.options, context))

    async def ScoreStream(  # noqa: N802
        self, requests: AsyncIterator[reward.ScoreStreamRequest], context: Context
    ) -> AsyncIterator[reward.ScoreStreamResponse]:
        """Scores items as they come, all with the model that the stream began with."""
        first = await self._options(requests)
        left = context.time_remaining()
        deadline = math.inf if left is None else time.monotonic() + left
        with self._registry.using(first.options.model) as served:
            demand = demand_of(first.options, served.model, deadline)
            stream = ItemStream(
                served.scorer,
                demand,
                max_items=self._max_stream_items,
                max_seconds=self._max_seconds,
                metrics=self._metrics,
            )
            with self._streams.holding(stream):
                async with aclosing(stream.replies(requests)) as replied:
                    async for reply in replied:
                        source = replies.Source(served.model, demand, reply.stages)
                        yield replies.stream_response(reply.number, reply.result, source)

    async def _options(self, requests: AsyncIterator[reward.ScoreStreamRequest]) -> reward.ScoreStreamRequest:
        try:
            async with asyncio.timeout(self._max_idle):
                first = await anext(requests, None)
        except TimeoutError as error:
            raise Expired(f"a stream begins with its options; none came within {self._max_idle:g} s") from error
        if first is None or first.WhichOneof("part") != "options":
            raise InvalidRequest("the first message of a stream holds its options")
        return first

    def drain(self) -> None:
        """Lets streams answer what they have read, and end."""
        self._streams.drain()

    async def Compare(self, request: reward.CompareRequest, context: Context) -> reward.CompareResponse:  # noqa: N802
        """Compares two completions."""
        pairs = [(request.prompt, request.first), (request.prompt, request.second)]
        return replies.compare_response(*await self._score(pairs, request.options, context))

    async def Rank(self, request: reward.RankRequest, context: Context) -> reward.RankResponse:  # noqa: N802
        """Ranks completions of one prompt."""
        pairs = [(request.prompt, completion) for completion in request.completions]
        return replies.rank_response(*await self._score(pairs, request.options, context))

    async def Explain(self, request: reward.ExplainRequest, context: Context) -> reward.ExplainResponse:  # noqa: N802
        """Shows what would be scored, without computing it."""
        with self._registry.using(request.options.model) as served:
            demand = demand_of(request.options, served.model, deadline_of(context, self._max_seconds))
            pair = (request.item.prompt, request.item.completion)
            (item,), _ = await served.scorer.render([pair], demand.truncation)
        if isinstance(item, RenderingError):
            raise InvalidRequest(str(item))
        return replies.explain_response(item, served.model)

    async def GetModelInfo(  # noqa: N802
        self, request: reward.GetModelInfoRequest, context: Context
    ) -> reward.GetModelInfoResponse:
        """Says what is loaded."""
        with self._registry.using(request.model) as served:
            return replies.info_response(served.model, self._max_items)

    async def ListModels(  # noqa: N802
        self, request: reward.ListModelsRequest, context: Context
    ) -> reward.ListModelsResponse:
        """Lists what is served."""
        return replies.models_response(self._registry.models(), self._registry.default)

    async def _score(
        self, pairs: Sequence[Pair], options: reward.ScoreOptions, context: Any
    ) -> tuple[list[ItemResult], replies.Source]:
        return await self._unary.score(pairs, options, deadline_of(context, self._max_seconds))
