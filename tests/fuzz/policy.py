"""The policy server's requests: prompts to continue, sequences to measure, and weights that are hostile."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from torch import Tensor

from palate.client import PolicyVersion
from palate.models.adapters import factor_names
from palate.models.weights import TensorEntry, describe_tensors, weights_digest
from palate.v1 import policy_service_pb2 as pb
from services.policy.adapters import AdapterBase
from services.policy.metrics import PolicyMetrics
from services.policy.publishing import PublishingServicer
from services.policy.requests import Limits, generate_call, logprobs_call
from services.policy.staging import Publication, Served
from services.runtime.errors import ServiceError
from services.runtime.interceptors import parse_message
from tests.fuzz import folders, mutation
from tests.fuzz.harness import Harness, frame, frames_of, spoilt
from tests.fuzz.messages import Values, filled, messages

LIMITS = Limits(max_tokens=64, max_prompts=8, max_completions=16, max_reply_bytes=65_536, vocab_size=320)

_RUN = "run"


def _generate(data: bytes) -> object:
    request = parse_message(pb.GenerateRequest.FromString, data)
    return generate_call(request, folders.renderer("strict"), LIMITS)


def _measure(data: bytes) -> object:
    request = parse_message(pb.ComputeLogprobsRequest.FromString, data)
    return logprobs_call(request, folders.renderer("strict"), LIMITS)


def _values() -> Values:
    digest = folders.renderer("strict").tokenizer_digest
    return {
        "palate.v1.TokenIds.ids": st.integers(0, 319),
        "palate.v1.TokenIds.tokenizer_digest": st.just(digest),
        "palate.v1.ComputeLogprobsRequest.tokenizer_digest": st.just(digest),
        "palate.v1.LogprobSequence.prompt_ids": st.integers(0, 319),
        "palate.v1.LogprobSequence.completion_ids": st.integers(0, 319),
        "palate.v1.ChatMessage.role": st.sampled_from(["user", "assistant"]),
        "palate.v1.SamplingParams.temperature": st.floats(0.1, 2),
        "palate.v1.SamplingParams.top_p": st.floats(0.1, 1),
        "palate.v1.SamplingParams.max_new_tokens": st.integers(1, 32),
    }


def _state() -> dict[str, Tensor]:
    """A model of three tensors: a matrix that adapters may be added to, half floats, integers."""
    matrix, halves = torch.linspace(-1, 1, 6).reshape(2, 3), torch.ones(4, dtype=torch.bfloat16)
    return {"a.weight": matrix, "b.bias": halves, "c.count": torch.arange(2)}


class _Engine:
    """Serves the tensors themselves."""

    def build(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return state


class _Server:
    """What publishes; a new one for every input, around one event loop."""

    def __init__(self, metrics: PolicyMetrics, *, frozen: bool) -> None:
        state = _state()
        layout = describe_tensors(state)
        initial = Served(PolicyVersion(digest=weights_digest(layout)), state)
        base = AdapterBase(layout, _state)
        self.publication = Publication(
            initial, layout, lambda weights: weights, adapters=base, frozen=frozen, lease_seconds=5
        )
        self.servicer = PublishingServicer(_Engine(), self.publication, metrics, 5.0)  # type: ignore[arg-type]
        self.token = 0
        self.staging_id = ""

    def check(self) -> None:
        """What is served is whole, finite, and what its version says."""
        served = self.publication.current
        assert weights_digest(describe_tensors(served.weights)) == served.version.digest
        assert all(bool(tensor.isfinite().all()) for tensor in served.weights.values())
        assert {name: t.shape for name, t in served.weights.items()} == {n: t.shape for n, t in _state().items()}


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return folders.InlineLoop()


@cache
def _metrics() -> PolicyMetrics:
    return PolicyMetrics(CollectorRegistry())


_CONTEXT = SimpleNamespace(time_remaining=lambda: None)

_CALLS: tuple[tuple[str, Any], ...] = (
    ("StageWeights", pb.StageWeightsRequest),
    ("AcquirePublisher", pb.AcquirePublisherRequest),
    ("CommitWeights", pb.CommitWeightsRequest),
    ("RevertWeights", pb.RevertWeightsRequest),
    ("AbortWeights", pb.AbortWeightsRequest),
)

_MEND, _FROZEN = 1, 2
"""Flags of an input: digests and tokens that nobody can guess are put right, so that what lies behind is reached."""


def _publish(data: bytes) -> object:
    """A flag byte, then messages in frames, each after the number of its call; those to StageWeights in a row are one.

    The first error is kept, so that what comes after it is tried as well.
    """
    flags = data[0] if data else 0
    server, refusals = _Server(_metrics(), frozen=bool(flags & _FROZEN)), []
    for name, requests in _calls(data[1:]):
        try:
            if flags & _MEND:
                _mend(server, requests)
            _loop().run_until_complete(_call(server, name, requests))
        except ServiceError as error:
            refusals.append(error)
        server.check()
    if refusals:
        raise refusals[0]
    return server.publication.current.version


def _stage(data: bytes) -> object:
    """The same for weights alone, behind a right to publish."""
    acquired = frame(b"\x01" + pb.AcquirePublisherRequest(run_id=_RUN, incarnation=1).SerializeToString())
    frames = b"".join(frame(b"\x00" + part) for part in frames_of(data[1:]))
    commit = frame(b"\x02" + pb.CommitWeightsRequest().SerializeToString())
    return _publish(bytes([(data[0] if data else 0) & _MEND]) + acquired + frames + commit)


def _calls(data: bytes) -> Iterator[tuple[str, list[Any]]]:
    staged: list[Any] = []
    for part in frames_of(data):
        name, kind = _CALLS[part[0] % len(_CALLS)] if part else _CALLS[0]
        request = parse_message(kind.FromString, part[1:])
        if name == "StageWeights":
            staged.append(request)
            continue
        if staged:
            yield "StageWeights", staged
            staged = []
        yield name, [request]
    if staged:
        yield "StageWeights", staged


async def _call(server: _Server, name: str, requests: list[Any]) -> None:
    async def sent() -> AsyncIterator[Any]:
        for request in requests:
            yield request

    reply = await getattr(server.servicer, name)(sent() if name == "StageWeights" else requests[0], _CONTEXT)
    if name == "AcquirePublisher":
        server.token = reply.fencing_token
    if name == "StageWeights":
        server.staging_id = reply.staging_id


def _mend(server: _Server, requests: list[Any]) -> None:
    for request in requests:
        if hasattr(request, "fencing_token"):
            request.fencing_token = server.token
        if hasattr(request, "staging_id"):
            request.staging_id = server.staging_id
    if isinstance(requests[0], pb.StageWeightsRequest) and requests[0].WhichOneof("part") == "manifest":
        _mend_manifest(server, requests[0].manifest, [r.chunk for r in requests[1:] if r.WhichOneof("part") == "chunk"])


def _mend_manifest(server: _Server, manifest: Any, chunks: list[Any]) -> None:
    """Digests of what is announced, as far as it comes whole."""
    manifest.fencing_token = server.token
    served = server.publication.current.version
    if manifest.HasField("base"):
        manifest.base.digest = served.digest
    for index, tensor in enumerate(manifest.tensors):
        data = b"".join(chunk.data for chunk in chunks if chunk.tensor_index == index)
        tensor.sha256 = hashlib.sha256(data).hexdigest()
    entries = [TensorEntry(t.name, t.dtype, tuple(t.shape), t.size_bytes, t.sha256) for t in manifest.tensors]
    manifest.version.digest = weights_digest(entries)


@st.composite
def _stagings(draw: st.DrawFn) -> list[bytes]:
    """The messages of a staging that is nearly right: whole, a delta, or adapters."""
    kind = draw(st.sampled_from([pb.WEIGHTS_KIND_FULL, pb.WEIGHTS_KIND_DELTA, pb.WEIGHTS_KIND_LORA]))
    state = _adapter(draw) if kind == pb.WEIGHTS_KIND_LORA else _state()
    manifest = pb.WeightsManifest(kind=kind, version=pb.PolicyVersion(run_id=_RUN, incarnation=1, step=1))
    if kind != pb.WEIGHTS_KIND_FULL:
        manifest.base.SetInParent()
    if kind == pb.WEIGHTS_KIND_LORA:
        manifest.lora_scale = draw(st.sampled_from([0.5, 1e38, float("nan")]))
    chunks = []
    for index, entry in enumerate(describe_tensors(state)):
        sent = _bytes(state[entry.name])
        spec = manifest.tensors.add(
            name=entry.name, dtype=entry.dtype, shape=entry.shape, size_bytes=len(sent), sha256=entry.sha256
        )
        if kind == pb.WEIGHTS_KIND_DELTA:
            spec.changed_elements = draw(st.integers(0, 2))
            size = len(sent) // state[entry.name].numel()
            sent = b"".join(n.to_bytes(4, "little") for n in range(spec.changed_elements))
            sent += bytes(spec.changed_elements * size)
        sent = draw(st.one_of(st.just(sent), spoilt(st.just(sent))))
        chunks.append(pb.StageWeightsRequest(chunk=pb.WeightsChunk(tensor_index=index, data=sent)))
    if draw(st.integers(0, 5)) == 0:
        chunks = draw(st.permutations(chunks))
    parts = [pb.StageWeightsRequest(manifest=manifest), *chunks]
    return [part.SerializeToString() for part in parts]


def _adapter(draw: st.DrawFn) -> dict[str, Tensor]:
    a, b = factor_names(draw(st.sampled_from(["a.weight", "a.weight", "b.bias"])))
    rank = draw(st.integers(1, 3))
    return {a: torch.ones(rank, 3), b: torch.ones(2, rank)}


def _bytes(tensor: Tensor) -> bytes:
    return bytes(tensor.contiguous().reshape(-1).view(torch.uint8).tolist())


_VALUES: Values = {
    "palate.v1.AcquirePublisherRequest.run_id": st.just(_RUN),
    "palate.v1.AcquirePublisherRequest.incarnation": st.integers(1, 2),
    "palate.v1.PolicyVersion.run_id": st.just(_RUN),
}


def _staged() -> st.SearchStrategy[bytes]:
    """A staging that is nearly right, or messages at random."""
    random = st.lists(messages(pb.StageWeightsRequest, _VALUES), max_size=4)
    return st.one_of(_stagings(), random).map(lambda parts: b"".join(map(frame, parts)))


@st.composite
def _publications(draw: st.DrawFn) -> bytes:
    """Several calls; the first one mostly acquires."""
    calls = [(1, pb.AcquirePublisherRequest(run_id=_RUN, incarnation=1).SerializeToString())]
    for _ in range(draw(st.integers(0, 4))):
        number = draw(st.integers(0, len(_CALLS) - 1))
        if number == 0:
            calls += [(0, part) for part in draw(_stagings())]
        else:
            calls.append((number, draw(filled(_CALLS[number][1], _VALUES)).SerializeToString()))
    flags = draw(st.sampled_from([0, _MEND, _MEND, _MEND | _FROZEN]))
    return bytes([flags]) + b"".join(frame(bytes([number]) + data) for number, data in calls)


def harnesses() -> list[Harness]:
    """Generate, ComputeLogprobs, StageWeights, and all calls that publish in any order."""
    flags = st.sampled_from([b"\x00", b"\x01", b"\x01"])
    return [
        Harness("policy.Generate", _generate, (ServiceError,),
                st.deferred(lambda: spoilt(messages(pb.GenerateRequest, _values()))),
                mutate=mutation.message),
        Harness("policy.ComputeLogprobs", _measure, (ServiceError,),
                st.deferred(lambda: spoilt(messages(pb.ComputeLogprobsRequest, _values()))),
                mutate=mutation.message),
        Harness("policy.StageWeights", _stage, (ServiceError,), st.builds(bytes.__add__, flags, spoilt(_staged())),
                mutate=lambda data, rng: data[:1] + mutation.messages(data[1:], rng)),
        Harness("policy.publishing", _publish, (ServiceError,), spoilt(_publications()),
                mutate=lambda data, rng: data[:1] + mutation.messages(data[1:], rng, head=1)),
    ]  # fmt: skip
