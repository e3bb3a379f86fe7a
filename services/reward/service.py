"""The reward service's RPCs: checks a request as a whole, scores its items, answers."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any, TypeAlias

import grpc

from palate.models.manifest import Truncation
from palate.models.rendering import RenderingError
from palate.v1 import reward_service_pb2 as reward
from palate.v1.reward_service_pb2_grpc import RewardServiceServicer
from services.reward import replies
from services.reward.config import RewardConfig
from services.reward.inputs import Pair
from services.reward.metrics import RewardMetrics
from services.reward.model import RewardModel
from services.reward.scoring import Demand, ItemResult, Scorer, Stages
from services.reward.streaming import ItemStream, OpenStreams
from services.runtime.deadlines import deadline_of
from services.runtime.errors import InvalidRequest, NotFound, TooLarge, WrongPin

_TRUNCATIONS: dict[int, Truncation] = {
    reward.TRUNCATION_REJECT: "reject",
    reward.TRUNCATION_LEFT: "left",
    reward.TRUNCATION_RIGHT: "right",
}

_PRIORITIES = {
    reward.PRIORITY_LOW: 0,
    reward.PRIORITY_UNSPECIFIED: 1,
    reward.PRIORITY_NORMAL: 1,
    reward.PRIORITY_HIGH: 2,
}

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class RewardServicer(RewardServiceServicer):
    """Answers for one model."""

    def __init__(self, model: RewardModel, scorer: Scorer, config: RewardConfig, metrics: RewardMetrics) -> None:
        self._model = model
        self._scorer = scorer
        self._metrics = metrics
        self._max_items = config.max_items
        self._max_stream_items = config.max_stream_items
        self._max_seconds = config.max_deadline_seconds
        oldest = 0.9 * min(config.max_connection_age_seconds, config.connection_grace_seconds)
        self._streams = OpenStreams(oldest, metrics)

    async def Score(self, request: reward.ScoreRequest, context: Context) -> reward.ScoreResponse:  # noqa: N802
        """Scores every item."""
        pairs = [(item.prompt, item.completion) for item in request.items]
        results, stages = await self._score(pairs, request.options, context)
        return replies.score_response(results, self._model, stages)

    async def ScoreStream(  # noqa: N802
        self, requests: AsyncIterator[reward.ScoreStreamRequest], context: Context
    ) -> AsyncIterator[reward.ScoreStreamResponse]:
        """Scores items as they come."""
        first = await anext(requests, None)
        if first is None or first.WhichOneof("part") != "options":
            raise InvalidRequest("the first message of a stream holds its options")
        left = context.time_remaining()
        demand = self._demand(first.options, math.inf if left is None else time.monotonic() + left)
        stream = ItemStream(
            self._scorer,
            demand,
            max_items=self._max_stream_items,
            max_seconds=self._max_seconds,
            metrics=self._metrics,
        )
        with self._streams.holding(stream):
            async with aclosing(stream.replies(requests)) as replied:
                async for reply in replied:
                    yield replies.stream_response(reply.number, reply.result, self._model, reply.stages)

    def drain(self) -> None:
        """Lets streams answer what they have read, and end."""
        self._streams.drain()

    async def Compare(self, request: reward.CompareRequest, context: Context) -> reward.CompareResponse:  # noqa: N802
        """Compares two completions."""
        pairs = [(request.prompt, request.first), (request.prompt, request.second)]
        results, stages = await self._score(pairs, request.options, context)
        return replies.compare_response(results, self._model, stages)

    async def Rank(self, request: reward.RankRequest, context: Context) -> reward.RankResponse:  # noqa: N802
        """Ranks completions of one prompt."""
        pairs = [(request.prompt, completion) for completion in request.completions]
        results, stages = await self._score(pairs, request.options, context)
        return replies.rank_response(results, self._model, stages)

    async def Explain(self, request: reward.ExplainRequest, context: Context) -> reward.ExplainResponse:  # noqa: N802
        """Shows what would be scored, without computing it."""
        demand = self._demand(request.options, deadline_of(context, self._max_seconds))
        pair = (request.item.prompt, request.item.completion)
        (item,), _ = await self._scorer.render([pair], demand.truncation)
        if isinstance(item, RenderingError):
            raise InvalidRequest(str(item))
        return replies.explain_response(item, self._model)

    async def GetModelInfo(  # noqa: N802
        self, request: reward.GetModelInfoRequest, context: Context
    ) -> reward.GetModelInfoResponse:
        """Says what is loaded."""
        self._check_name(request.model)
        return replies.info_response(self._model, self._max_items)

    async def ListModels(  # noqa: N802
        self, request: reward.ListModelsRequest, context: Context
    ) -> reward.ListModelsResponse:
        """Lists what is served."""
        return replies.models_response(self._model)

    async def _score(
        self, pairs: Sequence[Pair], options: reward.ScoreOptions, context: Any
    ) -> tuple[list[ItemResult], Stages]:
        demand = self._demand(options, deadline_of(context, self._max_seconds))
        if not pairs:
            raise InvalidRequest("the request holds nothing to score; send at least one item")
        if len(pairs) > self._max_items:
            raise TooLarge(f"{len(pairs)} items in one request; this server takes {self._max_items}: send several")
        return await self._scorer.score(pairs, demand)

    def _demand(self, options: reward.ScoreOptions, deadline: float) -> Demand:
        self._check_name(options.model)
        if options.revision and options.revision != self._model.digests.revision:
            raise WrongPin(
                f"the caller expects revision {options.revision[:64]!r}; this server has {self._model.digests.revision}"
            )
        default = self._model.manifest.truncation
        truncation = _TRUNCATIONS.get(options.truncation, default)
        if options.truncation != reward.TRUNCATION_UNSPECIFIED and options.truncation not in _TRUNCATIONS:
            raise InvalidRequest(f"truncation {options.truncation} is not known to this server")
        if options.priority not in _PRIORITIES:
            raise InvalidRequest(f"priority {options.priority} is not known to this server")
        return Demand(truncation, _PRIORITIES[options.priority], deadline)

    def _check_name(self, name: str) -> None:
        if name and name != self._model.name:
            raise NotFound(f"there is no model {name[:100]!r} here; this server has {self._model.name!r}")
