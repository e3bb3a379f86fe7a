"""Values that go to and come from the services; plain and immutable, without protobuf."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from palate.client.errors import ItemsFailed


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class TokenIds:
    """Ids of the tokenizer with this digest (see `ModelInfo.tokenizer_digest`)."""

    ids: tuple[int, ...]
    tokenizer_digest: str


ContentLike: TypeAlias = str | Sequence[Message] | TokenIds
"""A prompt or a completion: text, chat messages, or token ids."""


class Truncation(StrEnum):
    """What to do with an item longer than the model's maximum."""

    MODEL_DEFAULT = "UNSPECIFIED"
    REJECT = "REJECT"
    LEFT = "LEFT"
    RIGHT = "RIGHT"


class Priority(StrEnum):
    """Which work goes first."""

    LOW = "LOW"
    NORMAL = "NORMAL"
    HIGH = "HIGH"


class ItemErrorCode(StrEnum):
    """Why one item has no score."""

    INVALID = "INVALID"
    TOO_LONG = "TOO_LONG"
    EXPIRED = "EXPIRED"
    OVERLOADED = "OVERLOADED"
    CANCELLED = "CANCELLED"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Scored:
    """An item's score.

    Attributes:
        score: Raw scalar of the reward model; higher is better.
        calibrated: `score` standardised by the model's reference samples; None where the model stores none.
        token_count: Tokens the model read.
        truncated_tokens: Tokens cut away before.
    """

    score: float
    calibrated: float | None
    token_count: int
    truncated_tokens: int


@dataclass(frozen=True, slots=True)
class Failed:
    """Why an item has no score. It has no attribute `score`, so it cannot be read as one.

    Attributes:
        code: The kind of failure.
        message: What to do about it.
        retryable: Whether the same item may succeed later.
        retry_after: Seconds to wait before, where the server said so.
    """

    code: ItemErrorCode
    message: str
    retryable: bool
    retry_after: float | None


ScoreResult: TypeAlias = Scored | Failed
"""A score or an error, never both."""

StreamedResult: TypeAlias = tuple[int, ScoreResult]
"""Index of a pair, and its result."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """Which model gave a score."""

    model: str
    revision: str
    engine: str
    dtype: str


@dataclass(frozen=True, slots=True)
class Timings:
    """Where a request's time went, in seconds."""

    queue_seconds: float
    tokenize_seconds: float
    compute_seconds: float


@dataclass(frozen=True, slots=True)
class ScoreReply:
    """Results in the order of the items."""

    results: tuple[ScoreResult, ...]
    provenance: Provenance
    timings: Timings

    def scores(self) -> list[float]:
        """All scores, raw.

        Raises:
            ItemsFailed: An item has none; the error names the items.
        """
        failed = {index: result for index, result in enumerate(self.results) if isinstance(result, Failed)}
        if failed:
            raise ItemsFailed({index: f"{failure.code}: {failure.message}" for index, failure in failed.items()})
        return [result.score for result in self.results if isinstance(result, Scored)]


@dataclass(frozen=True, slots=True)
class Comparison:
    """How the first completion stands against the second.

    Attributes:
        difference: score(first) - score(second), raw.
        probability: Bradley-Terry probability that the first is preferred.
        first: The first completion's score.
        second: The second completion's score.
        provenance: Which model compared.
    """

    difference: float
    probability: float
    first: Scored
    second: Scored
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class Ranked:
    """A completion's place among the scored ones: rank 1 is best; `z_score` is None when the scores do not differ."""

    scored: Scored
    rank: int
    z_score: float | None


@dataclass(frozen=True, slots=True)
class Ranking:
    """Results in the order of the completions; `order` holds indices of the scored ones, best first."""

    results: tuple[Ranked | Failed, ...]
    order: tuple[int, ...]
    provenance: Provenance
    timings: Timings

    def best(self) -> int:
        """Index of the best completion.

        Raises:
            ItemsFailed: No completion has a score.
        """
        if not self.order:
            reasons = {index: f"{r.code}: {r.message}" for index, r in enumerate(self.results) if isinstance(r, Failed)}
            raise ItemsFailed(reasons)
        return self.order[0]


@dataclass(frozen=True, slots=True)
class Inferred:
    """What a model folder did not say, and what the server assumes instead."""

    missing: str
    assumed: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """What exactly would be scored, and at which token the score is read."""

    rendered_text: str
    token_ids: tuple[int, ...]
    tokens: tuple[str, ...]
    score_position: int
    transformers_score_position: int
    truncated_tokens: int
    template_kind: str
    inferred: tuple[Inferred, ...]
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a reward service has loaded."""

    provenance: Provenance
    weights_digest: str
    tokenizer_digest: str
    template_digest: str
    kind: str
    template_kind: str
    max_tokens: int
    max_items: int
    logit_scale: float
    reference_mean: float | None
    reference_std: float | None
    inferred: tuple[Inferred, ...]
    capabilities: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ModelListing:
    """A model that a reward service has; `kind` is "encoder" or "decoder"."""

    name: str
    is_default: bool
    revision: str
    kind: str


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
    """What a policy service has loaded."""

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


@dataclass(frozen=True, slots=True)
class Publisher:
    """The right to publish, and what is served now."""

    fencing_token: int
    current: PolicyVersion


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor that will be sent; `dtype` as safetensors names it, `sha256` of its little-endian bytes in C order."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size_bytes: int
    sha256: str


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
