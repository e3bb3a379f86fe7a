"""Values of the policy service."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from palate.client.types.content import Timings


@dataclass(frozen=True, slots=True)
class PolicyVersion:
    """Which weights a policy serves; the defaults are those a server starts with."""

    run_id: str = ""
    incarnation: int = 0
    step: int = 0
    digest: str = ""


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How tokens are drawn; the defaults change nothing of the model's distribution."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    max_new_tokens: int = 64
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False


class FinishReason(StrEnum):
    """Why a completion ended."""

    STOP = "STOP"
    LENGTH = "LENGTH"


@dataclass(frozen=True, slots=True)
class VersionSpan:
    """From `first_token` on, tokens were drawn from `version`."""

    first_token: int
    version: PolicyVersion


@dataclass(frozen=True, slots=True)
class GeneratedCompletion:
    """A finished completion.

    Attributes:
        prompt_index: Index into the prompts of the call.
        completion_index: Which of the prompt's completions.
        token_ids: The drawn tokens, (T,).
        text: Their text without special tokens.
        logprobs: Log-probability of each under the distribution it was drawn from, in nats, (T,).
        finish_reason: Why it ended.
        policy_versions: Which weights drew which tokens.
        seed: Seed of the prompt it continues.
        prompt_token_ids: The prompt as the policy read it.
    """

    prompt_index: int
    completion_index: int
    token_ids: tuple[int, ...]
    text: str
    logprobs: tuple[float, ...]
    finish_reason: FinishReason
    policy_versions: tuple[VersionSpan, ...]
    seed: int
    prompt_token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TokenChunk:
    """Tokens of a completion that have just been drawn; a completion's chunks come in order and without gaps.

    Attributes:
        prompt_index: Index into the prompts of the call.
        completion_index: Which of the prompt's completions.
        first_token: Place of the first of these tokens in the completion.
        token_ids: The tokens, (t,); one, or more where the reader was slower than the engine.
        logprobs: Of each under the distribution it was drawn from, in nats, (t,).
        text: The text that is complete with them; those of all chunks, joined, are the completion's text.
    """

    prompt_index: int
    completion_index: int
    first_token: int
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str


@dataclass(frozen=True, slots=True)
class LogprobsReply:
    """Logprobs of the completions, in the order of the sequences."""

    logprobs: tuple[tuple[float, ...], ...]
    policy_version: PolicyVersion
    timings: Timings


@dataclass(frozen=True, slots=True)
class PolicyInfo:
    """What a policy service has loaded.

    `threads`, `max_batch_rows` and `max_batch_tokens` are what the last bits of a logprob can depend on beside weights
    and request; `instance_id` names this start of the server: another one has forgotten what was published.
    """

    model: str
    policy_version: PolicyVersion
    tokenizer_digest: str
    template_digest: str
    engine: str
    dtype: str
    max_tokens: int
    max_prompts: int
    max_completions: int
    eos_token_id: int
    vocab_size: int
    frozen: bool
    capabilities: tuple[str, ...]
    decode_steps: int
    threads: int
    max_batch_rows: int
    max_batch_tokens: int
    instance_id: str


@dataclass(frozen=True, slots=True)
class Publisher:
    """The right to publish, and what is served now."""

    fencing_token: int
    current: PolicyVersion


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor that will be sent; `dtype` as safetensors names it, `sha256` of its little-endian bytes in C order.

    `changed_elements` belongs to deltas: that many positions and elements are sent instead of the whole tensor.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    size_bytes: int
    sha256: str
    changed_elements: int | None = None


@dataclass(frozen=True, slots=True)
class WeightsChunk:
    """A piece of a tensor: at most 1 MiB, in order, without gaps."""

    tensor_index: int
    offset_bytes: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Staged:
    """Weights that a server keeps aside until they are committed or the lease (seconds) ends."""

    staging_id: str
    digest: str
    lease: float
