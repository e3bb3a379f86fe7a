"""Clients of the policy service: `PolicyClient` blocks, `AsyncPolicyClient` awaits; both say the same things."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterable, Iterator, Sequence
from contextlib import aclosing, closing
from typing import TypeAlias, TypeVar

from palate.client import convert, policy_requests
from palate.client import types as t
from palate.client.calls import AwaitedClient, BlockingClient
from palate.client.channel import ChannelOptions
from palate.client.errors import CallError
from palate.v1 import policy_service_pb2 as policy
from palate.v1.policy_service_pb2_grpc import PolicyServiceStub

T = TypeVar("T")

Read: TypeAlias = Callable[[policy.GenerateResponse], T | None]
"""What a reply holds; None = nothing of interest."""

_SERVICE = "palate.v1.PolicyService"

_DEFAULT_SAMPLING = t.SamplingParams()


class PolicyClient(BlockingClient):
    """A policy service, called and waited for.

    Args:
        target: Address of one server, e.g. "127.0.0.1:50052". Publishing needs the address of each replica.
        timeout: Deadline of every call in seconds, unless the call says otherwise.
        options: Encryption, token, message sizes, retries.
    """

    def __init__(self, target: str, *, timeout: float = 120.0, options: ChannelOptions | None = None) -> None:
        super().__init__(_SERVICE, target, timeout, options)
        self._stub = PolicyServiceStub(self._channel)
        self._stage_weights = self._channel.stream_unary(
            f"/{_SERVICE}/StageWeights", response_deserializer=policy.StageWeightsResponse.FromString
        )  # what it sends is serialised already

    def generate(
        self,
        prompts: Sequence[t.ContentLike],
        *,
        sampling: t.SamplingParams = _DEFAULT_SAMPLING,
        completions_per_prompt: int = 1,
        seeds: Sequence[int] | None = None,
        required_policy_version: t.PolicyVersion | None = None,
        strict: bool = False,
        timeout: float | None = None,
    ) -> Iterator[t.GeneratedCompletion]:
        """Samples completions and yields each as it finishes, in no particular order.

        Leaving the loop early cancels the rest on the server. With `seeds`, one per prompt, the same weights draw the
        same tokens whatever else the server does, and logprobs that agree but for their last bits; with `strict`, the
        same bits.

        Raises:
            InvalidInput: An argument is wrong; at once, before the first completion is asked for.
            FailedPrecondition: The server serves other weights than `required_policy_version`.
            CallError: The call failed; completions already yielded stand.
        """
        request = policy_requests.generate_request(
            prompts, sampling, completions_per_prompt, seeds, required_policy_version, strict=strict
        )
        return self._drawn(request, self._seconds(timeout), convert.finished)

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
        request = policy_requests.generate_request(
            prompts, sampling, completions_per_prompt, seeds, required_policy_version, stream_tokens=True
        )
        return self._drawn(request, self._seconds(timeout), convert.drawn)

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
        request = policy_requests.logprobs_request(sequences, temperature, tokenizer_digest, required_policy_version)
        return convert.logprobs_reply(self._call(self._stub.ComputeLogprobs, request, timeout))

    def policy_info(self, *, timeout: float | None = None) -> t.PolicyInfo:
        """What the server has loaded."""
        return convert.policy_info(self._call(self._stub.GetPolicyInfo, policy.GetPolicyInfoRequest(), timeout))

    def acquire_publisher(self, run_id: str, incarnation: int, *, timeout: float | None = None) -> t.Publisher:
        """Makes this run the only one that may publish.

        Raises:
            FailedPrecondition: A later incarnation of the run was here, or the policy is frozen.
        """
        request = policy_requests.acquire_request(run_id, incarnation)
        reply = self._call(self._stub.AcquirePublisher, request, timeout)
        return t.Publisher(reply.fencing_token, convert.policy_version(reply.current))

    def stage_weights(
        self,
        fencing_token: int,
        version: t.PolicyVersion,
        tensors: Sequence[t.TensorSpec],
        chunks: Iterable[t.WeightsChunk],
        *,
        base: t.PolicyVersion | None = None,
        lora_scale: float | None = None,
        timeout: float | None = None,
    ) -> t.Staged:
        """Sends weights; the server checks them and keeps them aside until they are committed.

        Args:
            fencing_token: The right to publish.
            version: What the weights are.
            tensors: Every tensor of the model as it will be; with `base`, how many of its elements are changed; with
                `lora_scale`, the factors of every adapter (WeightsManifest in docs/api.md).
            chunks: What is sent of them, in order.
            base: What a delta changes, or what adapters are added to; None = the tensors come whole.
            lora_scale: The tensors are adapters, and this multiplies the products of their factors.
            timeout: Deadline in seconds.

        Raises:
            FailedPrecondition: Another publisher came, other weights are served than a delta's `base`, or the server
                started with other weights than that of adapters.
            InvalidArgument: What came is not what was announced.
        """
        manifest = policy_requests.manifest_request(fencing_token, version, tensors, base, lora_scale)
        outgoing = _Outgoing(itertools.chain([manifest.SerializeToString()], policy_requests.chunk_requests(chunks)))
        try:
            return convert.staged(self._call(self._stage_weights, outgoing, timeout))
        except CallError:
            if outgoing.error is not None:
                raise outgoing.error from None
            raise

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
        request = policy_requests.commit_request(fencing_token, staging_id, expected_current, interrupt)
        reply = self._call(self._stub.CommitWeights, request, timeout)
        return convert.policy_version(reply.current), convert.policy_version(reply.previous)

    def revert_weights(
        self, fencing_token: int, expected_current: t.PolicyVersion, *, timeout: float | None = None
    ) -> t.PolicyVersion:
        """Serves the weights before the last commit again; returns what is served."""
        request = policy_requests.revert_request(fencing_token, expected_current)
        return convert.policy_version(self._call(self._stub.RevertWeights, request, timeout).current)

    def abort_weights(self, fencing_token: int, staging_id: str, *, timeout: float | None = None) -> None:
        """Makes the server forget staged weights."""
        request = policy_requests.abort_request(fencing_token, staging_id)
        self._call(self._stub.AbortWeights, request, timeout)

    def _drawn(
        self,
        request: policy.GenerateRequest,
        seconds: float,
        read: Callable[[policy.GenerateResponse], T | None],
    ) -> Generator[T, None, None]:
        with closing(self._replies(self._stub.Generate, request, seconds)) as replies:
            for reply in replies:
                if (event := read(reply)) is not None:
                    yield event


class AsyncPolicyClient(AwaitedClient):
    """A policy service, awaited; for sampling. Make it inside a running event loop.

    Publishing belongs to a trainer, which blocks while it publishes: use `PolicyClient` for that.
    """

    def __init__(self, target: str, *, timeout: float = 120.0, options: ChannelOptions | None = None) -> None:
        super().__init__(_SERVICE, target, timeout, options)
        self._stub = PolicyServiceStub(self._channel)

    def generate(
        self,
        prompts: Sequence[t.ContentLike],
        *,
        sampling: t.SamplingParams = _DEFAULT_SAMPLING,
        completions_per_prompt: int = 1,
        seeds: Sequence[int] | None = None,
        required_policy_version: t.PolicyVersion | None = None,
        strict: bool = False,
        timeout: float | None = None,
    ) -> AsyncIterator[t.GeneratedCompletion]:
        """As `PolicyClient.generate`."""
        request = policy_requests.generate_request(
            prompts, sampling, completions_per_prompt, seeds, required_policy_version, strict=strict
        )
        return self._drawn(request, self._seconds(timeout), convert.finished)

    def generate_tokens(
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
        request = policy_requests.generate_request(
            prompts, sampling, completions_per_prompt, seeds, required_policy_version, stream_tokens=True
        )
        return self._drawn(request, self._seconds(timeout), convert.drawn)

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
        request = policy_requests.logprobs_request(sequences, temperature, tokenizer_digest, required_policy_version)
        return convert.logprobs_reply(await self._call(self._stub.ComputeLogprobs, request, timeout))

    async def policy_info(self, *, timeout: float | None = None) -> t.PolicyInfo:
        """As `PolicyClient.policy_info`."""
        return convert.policy_info(await self._call(self._stub.GetPolicyInfo, policy.GetPolicyInfoRequest(), timeout))

    async def _drawn(
        self,
        request: policy.GenerateRequest,
        seconds: float,
        read: Callable[[policy.GenerateResponse], T | None],
    ) -> AsyncGenerator[T, None]:
        async with aclosing(self._replies(self._stub.Generate, request, seconds)) as replies:
            async for reply in replies:
                if (event := read(reply)) is not None:
                    yield event


class _Outgoing(Iterator[bytes]):
    """Messages that gRPC's thread reads; what reading them raised is kept, since gRPC tells nothing of it."""

    def __init__(self, messages: Iterator[bytes]) -> None:
        self._messages = messages
        self.error: Exception | None = None

    def __next__(self) -> bytes:
        try:
            return next(self._messages)
        except StopIteration:
            raise
        except Exception as error:
            self.error = error
            raise
