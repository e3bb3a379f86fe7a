"""Clients of the reward service: `RewardClient` blocks, `AsyncRewardClient` awaits; both say the same things."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from typing import Any, Unpack

from palate.client import checks, convert
from palate.client import types as t
from palate.client.async_stream import AsyncScoreStream
from palate.client.calls import AwaitedClient, BlockingClient
from palate.client.channel import ChannelOptions
from palate.client.errors import ItemsFailed
from palate.client.reward_requests import RewardRequests
from palate.client.stream import ScoreStream
from palate.client.stream_state import EACH_PAIR, SERVICE, Pair, StreamOptions, StreamState
from palate.v1 import reward_service_pb2 as reward
from palate.v1.reward_service_pb2_grpc import RewardServiceStub


class RewardClient(BlockingClient):
    """A reward service, called and waited for.

    Args:
        target: Address, e.g. "127.0.0.1:50051" or "dns:///reward:50051" (the latter spreads load over replicas).
        timeout: Deadline of every call in seconds, unless the call says otherwise.
        model: Name of the model; empty = the server's default.
        revision: The revision to insist on; a server with another one raises `FailedPrecondition`. Empty = any.
        options: Encryption, token, message sizes, retries.
    """

    def __init__(
        self,
        target: str,
        *,
        timeout: float = 30.0,
        model: str = "",
        revision: str = "",
        options: ChannelOptions | None = None,
    ) -> None:
        super().__init__(SERVICE, target, timeout, options)
        self._requests = RewardRequests(model, revision)
        self._stub = RewardServiceStub(self._channel)

    def score(
        self,
        prompts: Sequence[t.ContentLike],
        completions: Sequence[t.ContentLike],
        *,
        timeout: float | None = None,
        **options: Unpack[t.ScoreOptions],
    ) -> t.ScoreReply:
        """Scores each completion of its prompt; every item gets a score or an error of its own.

        Args:
            prompts: What is answered.
            completions: The answers, one for each prompt.
            timeout: Deadline in seconds; None = the client's.
            options: How to score; see `ScoreOptions`. The other calls that score take the same.

        Raises:
            InvalidInput: An argument is wrong; nothing was sent.
            CallError: The whole call failed (see `palate.client.errors`).
        """
        request = self._requests.score(prompts, completions, **options)
        return convert.score_reply(self._call(self._stub.Score, request, timeout))

    def score_stream(
        self,
        pairs: Iterable[Pair],
        *,
        timeout_per_item: float | None = None,
        window: int = 256,
        patience: float = 60.0,
        **options: Unpack[t.ScoreOptions],
    ) -> ScoreStream:
        """Scores (prompt, completion) pairs, of which there may be endlessly many; gives (index, result) as they come.

        A broken connection is opened again, and only what has no answer is sent again; every pair is answered once. All
        scores are of one revision: where another server has another one, `FailedPrecondition` ends the stream.

        Args:
            pairs: What to score; read as there is room for it.
            timeout_per_item: Seconds an item has from the moment the server reads it; None = the server's maximum.
            window: Items that may be without an answer.
            patience: Seconds without an answer after which a broken stream is given up.
            options: How to score; see `ScoreOptions`.

        Raises:
            InvalidInput: An argument is wrong; from the iterator: something is no pair. Where a prompt or completion is
                wrong, the stream goes on, and the result of that pair is `Failed`.
            CallError: From the iterator: the stream cannot go on; its `unanswered` names the pairs without a result.
        """
        behaviour = StreamOptions(timeout_per_item, window, patience)
        state = StreamState(self.target, self._requests.options(**options), behaviour, self._options)

        def open_call(requests: Iterator[reward.ScoreStreamRequest]) -> Any:
            self._check_open()
            return self._stub.ScoreStream(requests, metadata=self._metadata)

        return ScoreStream(open_call, checks.iterable(pairs, "pairs", EACH_PAIR), state)

    def compare(
        self,
        prompt: t.ContentLike,
        first: t.ContentLike,
        second: t.ContentLike,
        *,
        timeout: float | None = None,
        **options: Unpack[t.ScoreOptions],
    ) -> t.Comparison:
        """Compares two completions.

        Raises:
            ItemsFailed: A side has no score.
            CallError: The call failed.
        """
        request = self._requests.compare(prompt, first, second, **options)
        return _compared(convert.comparison(self._call(self._stub.Compare, request, timeout)))

    def rank(
        self,
        prompt: t.ContentLike,
        completions: Sequence[t.ContentLike],
        *,
        timeout: float | None = None,
        **options: Unpack[t.ScoreOptions],
    ) -> t.Ranking:
        """Ranks completions of one prompt; `.best()` is the index of the best one."""
        request = self._requests.rank(prompt, completions, **options)
        return convert.ranking(self._call(self._stub.Rank, request, timeout))

    def explain(
        self,
        prompt: t.ContentLike,
        completion: t.ContentLike,
        *,
        timeout: float | None = None,
        **options: Unpack[t.ScoreOptions],
    ) -> t.Explanation:
        """Shows exactly what would be scored."""
        request = self._requests.explain(prompt, completion, **options)
        return convert.explanation(self._call(self._stub.Explain, request, timeout))

    def model_info(self, model: str | None = None, *, timeout: float | None = None) -> t.ModelInfo:
        """What the server has loaded by that name; None = the client's."""
        request = self._requests.model_info(model)
        return convert.model_info(self._call(self._stub.GetModelInfo, request, timeout))

    def list_models(self, *, timeout: float | None = None) -> tuple[t.ModelListing, ...]:
        """The models the server has."""
        return convert.model_listings(self._call(self._stub.ListModels, reward.ListModelsRequest(), timeout))


class AsyncRewardClient(AwaitedClient):
    """A reward service, awaited; arguments and methods as `RewardClient`. Make it inside a running event loop."""

    def __init__(
        self,
        target: str,
        *,
        timeout: float = 30.0,
        model: str = "",
        revision: str = "",
        options: ChannelOptions | None = None,
    ) -> None:
        super().__init__(SERVICE, target, timeout, options)
        self._requests = RewardRequests(model, revision)
        self._stub = RewardServiceStub(self._channel)

    async def score(
        self,
        prompts: Sequence[t.ContentLike],
        completions: Sequence[t.ContentLike],
        *,
        timeout: float | None = None,
        **options: Unpack[t.ScoreOptions],
    ) -> t.ScoreReply:
        """As `RewardClient.score`."""
        request = self._requests.score(prompts, completions, **options)
        return convert.score_reply(await self._call(self._stub.Score, request, timeout))

    def score_stream(
        self,
        pairs: Iterable[Pair] | AsyncIterable[Pair],
        *,
        timeout_per_item: float | None = None,
        window: int = 256,
        patience: float = 60.0,
        **options: Unpack[t.ScoreOptions],
    ) -> AsyncScoreStream:
        """As `RewardClient.score_stream`; the pairs may come asynchronously."""
        behaviour = StreamOptions(timeout_per_item, window, patience)
        state = StreamState(self.target, self._requests.options(**options), behaviour, self._options)

        def open_call(requests: AsyncIterator[reward.ScoreStreamRequest]) -> Any:
            self._check_open()
            return self._stub.ScoreStream(requests, metadata=self._metadata)

        known = pairs if isinstance(pairs, AsyncIterable) else checks.iterable(pairs, "pairs", EACH_PAIR)
        return AsyncScoreStream(open_call, known, state)

    async def compare(
        self,
        prompt: t.ContentLike,
        first: t.ContentLike,
        second: t.ContentLike,
        *,
        timeout: float | None = None,
        **options: Unpack[t.ScoreOptions],
    ) -> t.Comparison:
        """As `RewardClient.compare`."""
        request = self._requests.compare(prompt, first, second, **options)
        return _compared(convert.comparison(await self._call(self._stub.Compare, request, timeout)))

    async def rank(
        self,
        prompt: t.ContentLike,
        completions: Sequence[t.ContentLike],
        *,
        timeout: float | None = None,
        **options: Unpack[t.ScoreOptions],
    ) -> t.Ranking:
        """As `RewardClient.rank`."""
        request = self._requests.rank(prompt, completions, **options)
        return convert.ranking(await self._call(self._stub.Rank, request, timeout))

    async def explain(
        self,
        prompt: t.ContentLike,
        completion: t.ContentLike,
        *,
        timeout: float | None = None,
        **options: Unpack[t.ScoreOptions],
    ) -> t.Explanation:
        """As `RewardClient.explain`."""
        request = self._requests.explain(prompt, completion, **options)
        return convert.explanation(await self._call(self._stub.Explain, request, timeout))

    async def model_info(self, model: str | None = None, *, timeout: float | None = None) -> t.ModelInfo:
        """As `RewardClient.model_info`."""
        request = self._requests.model_info(model)
        return convert.model_info(await self._call(self._stub.GetModelInfo, request, timeout))

    async def list_models(self, *, timeout: float | None = None) -> tuple[t.ModelListing, ...]:
        """As `RewardClient.list_models`."""
        return convert.model_listings(await self._call(self._stub.ListModels, reward.ListModelsRequest(), timeout))


def _compared(outcome: t.Comparison | t.Failed) -> t.Comparison:
    if isinstance(outcome, t.Failed):
        raise ItemsFailed({0: f"{outcome.code}: {outcome.message}"})
    return outcome
