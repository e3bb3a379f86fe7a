"""Clients of the policy service: `PolicyClient` blocks, `AsyncPolicyClient` awaits; both say the same things."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterable, Iterator, Sequence
from contextlib import aclosing, closing
from types import TracebackType
from typing import Any, Self

from palate.client import convert
from palate.client import types as t
from palate.client.channel import (
    ChannelOptions,
    call_metadata,
    checked_size,
    errors_of,
    open_async_channel,
    open_channel,
)
from palate.v1 import policy_service_pb2 as policy
from palate.v1.policy_service_pb2_grpc import PolicyServiceStub

_DEFAULT_SAMPLING = t.SamplingParams()


class PolicyClient:
    """A policy service, called and waited for.

    Args:
        target: Address of one server, e.g. "127.0.0.1:50052". Publishing needs the address of each replica.
        timeout: Deadline of every call in seconds, unless the call says otherwise.
        options: Encryption, token, message sizes, retries.
    """

    def __init__(self, target: str, *, timeout: float = 120.0, options: ChannelOptions | None = None) -> None:
        self.target = target
        self._timeout = timeout
        self._options = options or ChannelOptions()
        self._metadata = call_metadata(self._options)
        self._channel = open_channel(target, self._options)
        self._stub = PolicyServiceStub(self._channel)

    def generate(
        self,
        prompts: Sequence[t.ContentLike],
        *,
        sampling: t.SamplingParams = _DEFAULT_SAMPLING,
        completions_per_prompt: int = 1,
        seeds: Sequence[int] | None = None,
        required_policy_version: t.PolicyVersion | None = None,
        timeout: float | None = None,
    ) -> Iterator[t.GeneratedCompletion]:
        """Samples completions and yields each as it finishes, in no particular order.

        Leaving the loop early cancels the rest on the server. With `seeds`, one per prompt, the same weights draw the
        same tokens whatever else the server does.

        Raises:
            FailedPrecondition: The server serves other weights than `required_policy_version`.
            CallError: The call failed; completions already yielded stand.
        """
        request = convert.generate_request(prompts, sampling, completions_per_prompt, seeds, required_policy_version)
        with closing(self._events(request, timeout)) as events:
            for event in events:
                if event.WhichOneof("event") == "completion":
                    yield convert.completion(event.completion)

    def generate_tokens(
        self,
        prompts: Sequence[t.ContentLike],
        *,
        sampling: t.SamplingParams = _DEFAULT_SAMPLING,
        completions_per_prompt: int = 1,
        seeds: Sequence[int] | None = None,
        required_policy_version: t.PolicyVersion | None = None,
        timeout: float | None = None,
    ) -> Iterator[t.TokenChunk | t.GeneratedCompletion]:
        """As `generate`, and yields tokens as they are drawn; a completion follows its last chunk and repeats them all.

        Raises:
            FailedPrecondition: The server serves other weights than `required_policy_version`.
            CallError: The call failed; what was already yielded stands.
        """
        request = convert.generate_request(
            prompts, sampling, completions_per_prompt, seeds, required_policy_version, stream_tokens=True
        )
        with closing(self._events(request, timeout)) as events:
            for event in events:
                if event.WhichOneof("event") == "tokens":
                    yield convert.token_chunk(event.tokens)
                elif event.WhichOneof("event") == "completion":
                    yield convert.completion(event.completion)

    def compute_logprobs(
        self,
        sequences: Iterable[tuple[Sequence[int], Sequence[int]]],
        *,
        tokenizer_digest: str,
        temperature: float = 1.0,
        required_policy_version: t.PolicyVersion | None = None,
        timeout: float | None = None,
    ) -> t.LogprobsReply:
        """Logprobs of completions, each given as (prompt ids, completion ids), under the served weights.

        Args:
            sequences: The ids.
            tokenizer_digest: Of the tokenizer that made them; `policy_info` tells the server's.
            temperature: Divides the logits.
            required_policy_version: Weights that must be served.
            timeout: Deadline in seconds.

        Raises:
            FailedPrecondition: The server has another tokenizer or serves other weights.
        """
        request = convert.logprobs_request(sequences, temperature, tokenizer_digest, required_policy_version)
        return convert.logprobs_reply(self._call(self._stub.ComputeLogprobs, request, timeout))

    def policy_info(self, *, timeout: float | None = None) -> t.PolicyInfo:
        """What the server has loaded."""
        return convert.policy_info(self._call(self._stub.GetPolicyInfo, policy.GetPolicyInfoRequest(), timeout))

    def acquire_publisher(self, run_id: str, incarnation: int, *, timeout: float | None = None) -> t.Publisher:
        """Makes this run the only one that may publish.

        Raises:
            FailedPrecondition: A later incarnation of the run was here, or the policy is frozen.
        """
        request = policy.AcquirePublisherRequest(run_id=run_id, incarnation=incarnation)
        reply = self._call(self._stub.AcquirePublisher, request, timeout)
        return t.Publisher(reply.fencing_token, convert.policy_version(reply.current))

    def stage_weights(
        self,
        fencing_token: int,
        version: t.PolicyVersion,
        tensors: Sequence[t.TensorSpec],
        chunks: Iterable[t.WeightsChunk],
        *,
        timeout: float | None = None,
    ) -> t.Staged:
        """Sends weights; the server checks them and keeps them aside until they are committed."""
        messages = convert.stage_messages(fencing_token, version, tensors, chunks)
        with errors_of(self.target):
            reply = self._stub.StageWeights(
                iter(messages), timeout=self._timeout if timeout is None else timeout, metadata=self._metadata
            )
        return convert.staged(reply)

    def commit_weights(
        self,
        fencing_token: int,
        staging_id: str,
        *,
        expected_current: t.PolicyVersion | None = None,
        interrupt: bool = False,
        timeout: float | None = None,
    ) -> tuple[t.PolicyVersion, t.PolicyVersion]:
        """Serves staged weights; returns (current, previous).

        Args:
            fencing_token: The right to publish.
            staging_id: Which weights.
            expected_current: What the caller believes is served; other weights are an error.
            interrupt: Running completions of unpinned calls go on with the new weights from their next token on, and
                have several spans in `policy_versions`; otherwise they finish on those they began with.
            timeout: Deadline in seconds.

        Raises:
            FailedPrecondition: Another publisher came, or other weights are served than expected.
            NotFound: Nothing is staged under that id any more.
        """
        request = policy.CommitWeightsRequest(
            fencing_token=fencing_token,
            staging_id=staging_id,
            expected_current=convert.policy_version_message(expected_current),
            interrupt=interrupt,
        )
        reply = self._call(self._stub.CommitWeights, request, timeout)
        return convert.policy_version(reply.current), convert.policy_version(reply.previous)

    def revert_weights(
        self, fencing_token: int, expected_current: t.PolicyVersion, *, timeout: float | None = None
    ) -> t.PolicyVersion:
        """Serves the weights before the last commit again; returns what is served."""
        request = policy.RevertWeightsRequest(
            fencing_token=fencing_token, expected_current=convert.policy_version_message(expected_current)
        )
        return convert.policy_version(self._call(self._stub.RevertWeights, request, timeout).current)

    def abort_weights(self, fencing_token: int, staging_id: str, *, timeout: float | None = None) -> None:
        """Makes the server forget staged weights."""
        request = policy.AbortWeightsRequest(fencing_token=fencing_token, staging_id=staging_id)
        self._call(self._stub.AbortWeights, request, timeout)

    def close(self) -> None:
        """Ends the connection."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _events(
        self, request: policy.GenerateRequest, timeout: float | None
    ) -> Generator[policy.GenerateResponse, None, None]:
        checked_size(request, self._options)
        with errors_of(self.target):
            call = self._stub.Generate(
                request, timeout=self._timeout if timeout is None else timeout, metadata=self._metadata
            )
            try:
                yield from call
            finally:
                call.cancel()

    def _call(self, method: Callable[..., Any], request: Any, timeout: float | None) -> Any:
        checked_size(request, self._options)
        with errors_of(self.target):
            return method(request, timeout=self._timeout if timeout is None else timeout, metadata=self._metadata)


class AsyncPolicyClient:
    """A policy service, awaited; for sampling. Make it inside a running event loop.

    Publishing belongs to a trainer, which blocks while it publishes: use `PolicyClient` for that.
    """

    def __init__(self, target: str, *, timeout: float = 120.0, options: ChannelOptions | None = None) -> None:
        self.target = target
        self._timeout = timeout
        self._options = options or ChannelOptions()
        self._metadata = call_metadata(self._options)
        self._channel = open_async_channel(target, self._options)
        self._stub = PolicyServiceStub(self._channel)

    async def generate(
        self,
        prompts: Sequence[t.ContentLike],
        *,
        sampling: t.SamplingParams = _DEFAULT_SAMPLING,
        completions_per_prompt: int = 1,
        seeds: Sequence[int] | None = None,
        required_policy_version: t.PolicyVersion | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[t.GeneratedCompletion]:
        """As `PolicyClient.generate`."""
        request = convert.generate_request(prompts, sampling, completions_per_prompt, seeds, required_policy_version)
        async with aclosing(self._events(request, timeout)) as events:
            async for event in events:
                if event.WhichOneof("event") == "completion":
                    yield convert.completion(event.completion)

    async def generate_tokens(
        self,
        prompts: Sequence[t.ContentLike],
        *,
        sampling: t.SamplingParams = _DEFAULT_SAMPLING,
        completions_per_prompt: int = 1,
        seeds: Sequence[int] | None = None,
        required_policy_version: t.PolicyVersion | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[t.TokenChunk | t.GeneratedCompletion]:
        """As `PolicyClient.generate_tokens`."""
        request = convert.generate_request(
            prompts, sampling, completions_per_prompt, seeds, required_policy_version, stream_tokens=True
        )
        async with aclosing(self._events(request, timeout)) as events:
            async for event in events:
                if event.WhichOneof("event") == "tokens":
                    yield convert.token_chunk(event.tokens)
                elif event.WhichOneof("event") == "completion":
                    yield convert.completion(event.completion)

    async def compute_logprobs(
        self,
        sequences: Iterable[tuple[Sequence[int], Sequence[int]]],
        *,
        tokenizer_digest: str,
        temperature: float = 1.0,
        required_policy_version: t.PolicyVersion | None = None,
        timeout: float | None = None,
    ) -> t.LogprobsReply:
        """As `PolicyClient.compute_logprobs`."""
        request = convert.logprobs_request(sequences, temperature, tokenizer_digest, required_policy_version)
        return convert.logprobs_reply(await self._call(self._stub.ComputeLogprobs, request, timeout))

    async def policy_info(self, *, timeout: float | None = None) -> t.PolicyInfo:
        """As `PolicyClient.policy_info`."""
        return convert.policy_info(await self._call(self._stub.GetPolicyInfo, policy.GetPolicyInfoRequest(), timeout))

    async def close(self) -> None:
        """Ends the connection."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _events(
        self, request: policy.GenerateRequest, timeout: float | None
    ) -> AsyncGenerator[policy.GenerateResponse, None]:
        checked_size(request, self._options)
        with errors_of(self.target):
            call = self._stub.Generate(
                request, timeout=self._timeout if timeout is None else timeout, metadata=self._metadata
            )
            try:
                async for event in call:
                    yield event
            finally:
                call.cancel()

    async def _call(self, method: Callable[..., Awaitable[Any]], request: Any, timeout: float | None) -> Any:
        checked_size(request, self._options)
        with errors_of(self.target):
            return await method(request, timeout=self._timeout if timeout is None else timeout, metadata=self._metadata)
