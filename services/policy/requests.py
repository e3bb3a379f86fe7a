"""What callers send, checked and turned into values; every refusal names what is wrong and what would be right."""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from palate.client import PolicyVersion
from palate.client.convert import policy_version
from palate.models.adapters import AddedTo
from palate.models.rendering import Content, Renderer, RenderingError
from palate.models.weights import Chunk, TensorEntry
from palate.v1 import common_pb2 as common
from palate.v1 import policy_service_pb2 as pb
from services.policy.sampling import Sampling
from services.policy.upload import Changes
from services.runtime.errors import InvalidRequest, TooLarge, WrongPin

_MAX_STOPS = 16
_MAX_STOP_CHARACTERS = 256

_TEMPERATURES = (1e-6, 1e6)
"""Beyond these, logits divided by the temperature leave float32 or lose what tells them apart."""

_REPLY_BYTES_PER_LOGPROB = 5


@dataclass(frozen=True, slots=True)
class Limits:
    """What one call may ask for.

    Attributes:
        max_tokens: Longest prompt plus completion.
        max_prompts: Most prompts.
        max_completions: Most completions of all prompts together.
        max_reply_bytes: Largest reply message.
        vocab_size: Ids are below this.
    """

    max_tokens: int
    max_prompts: int
    max_completions: int
    max_reply_bytes: int
    vocab_size: int


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as the policy reads it, and the seed of its completions."""

    ids: tuple[int, ...]
    seed: int


@dataclass(frozen=True, slots=True)
class GenerateCall:
    """A checked Generate request."""

    prompts: tuple[Prompt, ...]
    completions_per_prompt: int
    sampling: Sampling
    stop: tuple[str, ...]
    required: PolicyVersion | None
    stream_tokens: bool = False
    strict: bool = False


@dataclass(frozen=True, slots=True)
class LogprobsCall:
    """A checked ComputeLogprobs request: (prompt ids, completion ids) each."""

    sequences: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
    temperature: float
    required: PolicyVersion | None


def generate_call(request: pb.GenerateRequest, renderer: Renderer, limits: Limits) -> GenerateCall:
    """Checks a request and renders its prompts.

    Raises:
        InvalidRequest: A value is wrong.
        TooLarge: It asks for more than a call may.
        WrongPin: Token ids of another tokenizer.
    """
    completions = request.completions_per_prompt or 1
    _check_counts(len(request.prompts), completions, limits)
    sampling = _sampling(request.sampling, limits)
    stop = _stop(request.sampling.stop)
    rendered = _rendered([message.prompt for message in request.prompts], renderer, limits)
    for index, ids in enumerate(rendered):
        _check_length(index, len(ids), sampling.max_new_tokens, limits)
    seeds = [message.seed if message.HasField("seed") else secrets.randbits(64) for message in request.prompts]
    prompts = tuple(Prompt(tuple(ids), seed) for ids, seed in zip(rendered, seeds, strict=True))
    return GenerateCall(
        prompts, completions, sampling, stop, required_version(request), request.stream_tokens, request.strict
    )


def logprobs_call(request: pb.ComputeLogprobsRequest, renderer: Renderer, limits: Limits) -> LogprobsCall:
    """Checks a request.

    Raises:
        InvalidRequest: A value is wrong.
        TooLarge: It asks for more than a call may.
        WrongPin: The ids are of another tokenizer.
    """
    _check_counts(len(request.sequences), 1, limits)
    _check_tokenizer(request.tokenizer_digest, renderer)
    temperature = request.temperature if request.HasField("temperature") else 1.0
    _check_temperature(temperature)
    sequences = tuple((tuple(s.prompt_ids), tuple(s.completion_ids)) for s in request.sequences)
    for index, (prompt, completion) in enumerate(sequences):
        if not prompt or not completion:
            raise InvalidRequest(f"sequence {index} needs at least one prompt id and one completion id")
        _check_ids(f"sequence {index}", (*prompt, *completion), limits)
        if len(prompt) + len(completion) > limits.max_tokens:
            raise InvalidRequest(
                f"sequence {index} has {len(prompt) + len(completion)} tokens; the policy reads {limits.max_tokens}"
            )
    if (count := sum(len(completion) for _, completion in sequences)) * _REPLY_BYTES_PER_LOGPROB > (
        limits.max_reply_bytes
    ):
        raise TooLarge(f"{count} logprobs do not fit into a reply of {limits.max_reply_bytes} bytes; split the call")
    return LogprobsCall(sequences, temperature, required_version(request))


def required_version(request: pb.GenerateRequest | pb.ComputeLogprobsRequest) -> PolicyVersion | None:
    """The version that a caller insists on."""
    return policy_version(request.required_policy_version) if request.HasField("required_policy_version") else None


def expected_version(request: pb.CommitWeightsRequest | pb.RevertWeightsRequest) -> PolicyVersion | None:
    """The version that a publisher believes is served."""
    return policy_version(request.expected_current) if request.HasField("expected_current") else None


def manifest_entries(manifest: pb.WeightsManifest) -> list[TensorEntry]:
    """The announced tensors, as they will be."""
    return [
        TensorEntry(tensor.name, tensor.dtype, tuple(tensor.shape), tensor.size_bytes, tensor.sha256)
        for tensor in manifest.tensors
    ]


def manifest_relation(manifest: pb.WeightsManifest) -> Changes | AddedTo | None:
    """What a delta changes, or what adapters are added to; None = the tensors come whole.

    Raises:
        InvalidRequest: The weights are of a kind this server does not take, or do not say what they are relative to.
    """
    if manifest.HasField("lora_scale") and manifest.kind != pb.WEIGHTS_KIND_LORA:
        raise InvalidRequest("lora_scale is of WEIGHTS_KIND_LORA alone; leave it out, or send that kind")
    match manifest.kind:
        case pb.WEIGHTS_KIND_FULL:
            return None
        case pb.WEIGHTS_KIND_DELTA:
            return Changes(_base(manifest, "a delta"), tuple(_changed_elements(each) for each in manifest.tensors))
        case pb.WEIGHTS_KIND_LORA:
            return AddedTo(_base(manifest, "an adapter"), _lora_scale(manifest))
    raise InvalidRequest(
        f"kind {manifest.kind} is not supported; this server takes WEIGHTS_KIND_FULL, WEIGHTS_KIND_DELTA and "
        "WEIGHTS_KIND_LORA"
    )


def weights_chunk(request: pb.StageWeightsRequest) -> Chunk:
    """The chunk of every message after the first.

    Raises:
        InvalidRequest: The message holds none.
    """
    if request.WhichOneof("part") != "chunk":
        raise InvalidRequest("after the manifest every message holds a chunk; start another call for other weights")
    chunk = request.chunk
    return Chunk(chunk.tensor_index, chunk.offset_bytes, chunk.data)


def _base(manifest: pb.WeightsManifest, what: str) -> PolicyVersion:
    if not manifest.HasField("base"):
        raise InvalidRequest(f"{what} needs base, the version that it is relative to; or send WEIGHTS_KIND_FULL")
    return policy_version(manifest.base)


def _changed_elements(tensor: pb.TensorSpec) -> int | None:
    return tensor.changed_elements if tensor.HasField("changed_elements") else None


def _lora_scale(manifest: pb.WeightsManifest) -> float:
    """What multiplies the adapters."""
    if any(tensor.HasField("changed_elements") for tensor in manifest.tensors):
        raise InvalidRequest("changed_elements is of deltas alone; adapters are sent whole")
    if not manifest.HasField("lora_scale") or not math.isfinite(manifest.lora_scale):
        raise InvalidRequest("adapters need lora_scale, a finite number, e.g. alpha / rank")
    return float(manifest.lora_scale)


def _check_counts(prompts: int, completions: int, limits: Limits) -> None:
    if prompts == 0:
        raise InvalidRequest("the request is empty; send at least one prompt or sequence")
    if prompts > limits.max_prompts:
        raise TooLarge(f"{prompts} prompts or sequences; a call takes {limits.max_prompts}: split it")
    if prompts * completions > limits.max_completions:
        raise TooLarge(f"{prompts * completions} completions; a call may ask for {limits.max_completions}: split it")


def _sampling(message: pb.SamplingParams, limits: Limits) -> Sampling:
    temperature = message.temperature if message.HasField("temperature") else 1.0
    top_p = message.top_p if message.HasField("top_p") else 1.0
    _check_temperature(temperature)
    if not 0.0 < top_p <= 1.0:
        raise InvalidRequest(f"top_p is {top_p}; it is above 0 and at most 1 (1 keeps every token)")
    if message.top_k > limits.vocab_size:
        raise InvalidRequest(f"top_k is {message.top_k}; the vocabulary has {limits.vocab_size} tokens (0 keeps all)")
    if message.max_new_tokens < 1:
        raise InvalidRequest("max_new_tokens is 0 or absent; it is at least 1")
    return Sampling(temperature, message.top_k, top_p, message.max_new_tokens, message.ignore_eos)


def _check_temperature(temperature: float) -> None:
    low, high = _TEMPERATURES
    if not low <= temperature <= high:
        raise InvalidRequest(
            f"temperature is {temperature}; it is from {low:g} to {high:g} (for the likeliest token use top_k = 1)"
        )


def _stop(texts: Sequence[str]) -> tuple[str, ...]:
    if "" in texts:
        raise InvalidRequest("stop has an empty text, which stands everywhere: leave it out")
    if len(texts) > _MAX_STOPS or any(len(text) > _MAX_STOP_CHARACTERS for text in texts):
        raise InvalidRequest(f"stop takes at most {_MAX_STOPS} texts of up to {_MAX_STOP_CHARACTERS} characters")
    return tuple(texts)


def _rendered(contents: Sequence[common.Content], renderer: Renderer, limits: Limits) -> list[list[int]]:
    """Ids of every prompt; texts are rendered together, ids are taken as they are."""
    texts = {index: _plain(index, content) for index, content in enumerate(contents) if not _has_ids(content)}
    try:
        rendered = dict(zip(texts, renderer.render_prompts(list(texts.values())) if texts else [], strict=True))
    except RenderingError as error:
        raise InvalidRequest(str(error)) from error
    return [
        rendered[index] if index in rendered else _given_ids(index, content.token_ids, renderer, limits)
        for index, content in enumerate(contents)
    ]


def _has_ids(content: common.Content) -> bool:
    return bool(content.WhichOneof("form") == "token_ids")


def _plain(index: int, content: common.Content) -> Content:
    if content.WhichOneof("form") == "text":
        return str(content.text)
    if content.WhichOneof("form") == "conversation" and content.conversation.messages:
        return [{"role": message.role, "content": message.content} for message in content.conversation.messages]
    raise InvalidRequest(f"prompt {index} is empty; give it text, a conversation with messages, or token ids")


def _given_ids(index: int, given: common.TokenIds, renderer: Renderer, limits: Limits) -> list[int]:
    _check_tokenizer(given.tokenizer_digest, renderer)
    if not given.ids:
        raise InvalidRequest(f"prompt {index} has no token ids; the policy continues at least one token")
    _check_ids(f"prompt {index}", given.ids, limits)
    return list(given.ids)


def _check_tokenizer(digest: str, renderer: Renderer) -> None:
    if not digest:
        raise InvalidRequest("tokenizer_digest is missing beside the token ids; GetPolicyInfo tells the right one")
    if digest != renderer.tokenizer_digest:
        raise WrongPin(
            f"the token ids are of tokenizer {digest[:12]}; this server has {renderer.tokenizer_digest[:12]}: send text"
        )


def _check_ids(what: str, ids: Sequence[int], limits: Limits) -> None:
    if max(ids) >= limits.vocab_size:
        raise InvalidRequest(f"{what} holds token id {max(ids)}; the vocabulary has {limits.vocab_size} tokens")


def _check_length(index: int, prompt_tokens: int, max_new_tokens: int, limits: Limits) -> None:
    if prompt_tokens + max_new_tokens > limits.max_tokens:
        raise InvalidRequest(
            f"prompt {index} has {prompt_tokens} tokens, and with max_new_tokens = {max_new_tokens} it would pass the "
            f"policy's {limits.max_tokens}; shorten the prompt or ask for fewer tokens"
        )
