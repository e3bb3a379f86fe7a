"""What the policy clients send, made from checked arguments; each function raises `InvalidInput` where one is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from palate.client import checks
from palate.client import types as t
from palate.client.content import content_messages
from palate.client.convert import policy_version_message
from palate.client.errors import InvalidInput
from palate.v1 import policy_service_pb2 as policy


def sampling_message(value: t.SamplingParams) -> policy.SamplingParams:
    """How tokens are drawn."""
    sampling = checks.instance(value, t.SamplingParams, "sampling")
    stop = enumerate(checks.several(sampling.stop, "stop", "texts"))
    return policy.SamplingParams(
        temperature=checks.number(sampling.temperature, "temperature"),
        top_k=checks.count(sampling.top_k, "top_k"),
        top_p=checks.number(sampling.top_p, "top_p"),
        max_new_tokens=checks.count(sampling.max_new_tokens, "max_new_tokens"),
        stop=[checks.text(each, f"stop[{index}]") for index, each in stop],
        ignore_eos=checks.flag(sampling.ignore_eos, "ignore_eos"),
    )


def generate_request(
    prompts: Sequence[t.ContentLike],
    sampling: t.SamplingParams,
    completions_per_prompt: int,
    seeds: Sequence[int] | None,
    required: t.PolicyVersion | None,
    *,
    stream_tokens: bool = False,
    strict: bool = False,
) -> policy.GenerateRequest:
    """One prompt message per prompt, each with its seed where given."""
    contents = content_messages(prompts, "prompts")
    chosen = _seeds(seeds, len(contents))
    messages = [policy.GeneratePrompt(prompt=p, seed=s) for p, s in zip(contents, chosen, strict=True)]
    return policy.GenerateRequest(
        prompts=messages,
        completions_per_prompt=checks.count(completions_per_prompt, "completions_per_prompt", smallest=1),
        sampling=sampling_message(sampling),
        required_policy_version=_expected(required, "required_policy_version"),
        stream_tokens=stream_tokens,
        strict=checks.flag(strict, "strict"),
    )


def _seeds(seeds: Sequence[int] | None, prompts: int) -> Sequence[int | None]:
    if seeds is None:
        return [None] * prompts
    found = checks.several(seeds, "seeds", "numbers")
    if len(found) != prompts:
        raise InvalidInput(f"{len(found)} seeds for {prompts} prompts; give one per prompt or none")
    return [checks.count(seed, f"seeds[{index}]", checks.UINT64) for index, seed in enumerate(found)]


def logprobs_request(
    sequences: Iterable[tuple[Sequence[int], Sequence[int]]],
    temperature: float,
    tokenizer_digest: str,
    required: t.PolicyVersion | None,
) -> policy.ComputeLogprobsRequest:
    """One sequence per (prompt ids, completion ids)."""
    each = "pairs (prompt ids, completion ids)"
    found = enumerate(checks.several(sequences, "sequences", each))
    return policy.ComputeLogprobsRequest(
        sequences=[_sequence(sequence, f"sequences[{index}]") for index, sequence in found],
        temperature=checks.number(temperature, "temperature"),
        tokenizer_digest=checks.text(tokenizer_digest, "tokenizer_digest"),
        required_policy_version=_expected(required, "required_policy_version"),
    )


def _sequence(value: object, name: str) -> policy.LogprobSequence:
    prompt, completion = checks.pair(value, name, "(prompt ids, completion ids)")
    return policy.LogprobSequence(
        prompt_ids=checks.ids(prompt, f"{name}[0]"), completion_ids=checks.ids(completion, f"{name}[1]")
    )


def acquire_request(run_id: str, incarnation: int) -> policy.AcquirePublisherRequest:
    """Who wants to publish."""
    return policy.AcquirePublisherRequest(
        run_id=checks.text(run_id, "run_id"), incarnation=checks.count(incarnation, "incarnation", checks.UINT64)
    )


def manifest_request(
    fencing_token: int,
    version: t.PolicyVersion,
    tensors: Sequence[t.TensorSpec],
    base: t.PolicyVersion | None,
    lora_scale: float | None,
) -> policy.StageWeightsRequest:
    """What weights will come: whole, as changes of `base`, or as adapters that are added to it."""
    specs = enumerate(checks.several(tensors, "tensors", "TensorSpec"))
    return policy.StageWeightsRequest(
        manifest=policy.WeightsManifest(
            fencing_token=_fencing(fencing_token),
            version=_version(version, "version"),
            kind=_kind(base, lora_scale),
            tensors=[_tensor_message(spec, f"tensors[{index}]") for index, spec in specs],
            base=None if base is None else _version(base, "base"),
            lora_scale=None if lora_scale is None else checks.number(lora_scale, "lora_scale"),
        )
    )


def _kind(base: t.PolicyVersion | None, lora_scale: float | None) -> policy.WeightsKind:
    if lora_scale is not None:
        return policy.WEIGHTS_KIND_LORA
    return policy.WEIGHTS_KIND_FULL if base is None else policy.WEIGHTS_KIND_DELTA


def chunk_requests(chunks: Iterable[t.WeightsChunk]) -> Iterator[bytes]:
    """Pieces of weights, in order, each as a serialised `StageWeightsRequest`."""
    for index, each in enumerate(chunks):
        name = f"chunks[{index}]"
        chunk = checks.instance(each, t.WeightsChunk, name)
        place = policy.WeightsChunk(
            tensor_index=checks.count(chunk.tensor_index, f"{name}.tensor_index"),
            offset_bytes=checks.count(chunk.offset_bytes, f"{name}.offset_bytes", checks.UINT64),
        )
        yield _around(place.SerializeToString(), checks.instance(chunk.data, bytes, f"{name}.data"))


def _around(place: bytes, data: bytes) -> bytes:
    """The request, put together around the data in one copy; protobuf makes two more, and they hold up the stream."""
    chunk = b"".join((place, _DATA, _varint(len(data))))
    return b"".join((_CHUNK, _varint(len(chunk) + len(data)), chunk, data))


def _varint(number: int) -> bytes:
    groups = [number >> shift & 0x7F for shift in range(0, max(1, number.bit_length()), 7)]
    return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])


def _tag(message: Any, field: str) -> bytes:
    """What stands before a field whose length is told."""
    return _varint(message.DESCRIPTOR.fields_by_name[field].number << 3 | 2)


_CHUNK, _DATA = _tag(policy.StageWeightsRequest, "chunk"), _tag(policy.WeightsChunk, "data")


def commit_request(
    fencing_token: int, staging_id: str, expected_current: t.PolicyVersion | None, interrupt: bool
) -> policy.CommitWeightsRequest:
    """Which weights to serve."""
    return policy.CommitWeightsRequest(
        fencing_token=_fencing(fencing_token),
        staging_id=checks.text(staging_id, "staging_id"),
        expected_current=_expected(expected_current, "expected_current"),
        interrupt=checks.flag(interrupt, "interrupt"),
    )


def revert_request(fencing_token: int, expected_current: t.PolicyVersion) -> policy.RevertWeightsRequest:
    """Which weights to leave."""
    return policy.RevertWeightsRequest(
        fencing_token=_fencing(fencing_token), expected_current=_version(expected_current, "expected_current")
    )


def abort_request(fencing_token: int, staging_id: str) -> policy.AbortWeightsRequest:
    """Which weights to forget."""
    return policy.AbortWeightsRequest(
        fencing_token=_fencing(fencing_token), staging_id=checks.text(staging_id, "staging_id")
    )


def _fencing(value: int) -> int:
    return checks.count(value, "fencing_token", checks.UINT64)


def _expected(value: t.PolicyVersion | None, name: str) -> policy.PolicyVersion | None:
    return None if value is None else _version(value, name)


def _version(value: t.PolicyVersion, name: str) -> policy.PolicyVersion:
    version = checks.instance(value, t.PolicyVersion, name)
    checks.text(version.run_id, f"{name}.run_id")
    checks.count(version.incarnation, f"{name}.incarnation", checks.UINT64)
    checks.count(version.step, f"{name}.step", checks.UINT64)
    checks.text(version.digest, f"{name}.digest")
    return policy_version_message(version)


def _tensor_message(value: t.TensorSpec, name: str) -> policy.TensorSpec:
    tensor = checks.instance(value, t.TensorSpec, name)
    shape = checks.several(tensor.shape, f"{name}.shape", "sizes")
    return policy.TensorSpec(
        name=checks.text(tensor.name, f"{name}.name"),
        dtype=checks.text(tensor.dtype, f"{name}.dtype"),
        shape=[checks.count(size, f"{name}.shape", checks.UINT64) for size in shape],
        size_bytes=checks.count(tensor.size_bytes, f"{name}.size_bytes", checks.UINT64),
        sha256=checks.text(tensor.sha256, f"{name}.sha256"),
        changed_elements=(
            None
            if tensor.changed_elements is None
            else checks.count(tensor.changed_elements, f"{name}.changed_elements", checks.UINT64)
        ),
    )
