"""Values of the reward service."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from palate.client.errors import ItemsFailed
from palate.client.types.content import Timings


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
        score: Raw scalar of the reward model; higher is better. Of an ensemble: its members' aggregate.
        calibrated: `score` standardised by the model's reference samples; None where the model stores none.
        token_count: Tokens the model read.
        truncated_tokens: Tokens cut away before.
        std: Standard deviation of an ensemble's members, divided by their number; None for a model without members.
        members: Every member's raw score, in the order of `ModelInfo.members`; empty unless asked for.
    """

    score: float
    calibrated: float | None
    token_count: int
    truncated_tokens: int
    std: float | None = None
    members: tuple[float, ...] = ()


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


def scores_of(results: Sequence[ScoreResult]) -> list[float]:
    """All scores, raw.

    Raises:
        ItemsFailed: An item has none; the error names the items.
    """
    failed = {index: result for index, result in enumerate(results) if isinstance(result, Failed)}
    if failed:
        raise ItemsFailed({index: f"{failure.code}: {failure.message}" for index, failure in failed.items()})
    return [result.score for result in results if isinstance(result, Scored)]


@dataclass(frozen=True, slots=True)
class Provenance:
    """Which model gave a score."""

    model: str
    revision: str
    engine: str
    dtype: str


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
        return scores_of(self.results)


@dataclass(frozen=True, slots=True)
class Comparison:
    """How the first completion stands against the second.

    Attributes:
        difference: score(first) - score(second), raw.
        probability: Bradley-Terry probability that the first is preferred.
        first: The first completion's score.
        second: The second completion's score.
        provenance: Which model compared.
        difference_std: Standard deviation of the members' own differences; None for a model without members.
    """

    difference: float
    probability: float
    first: Scored
    second: Scored
    provenance: Provenance
    difference_std: float | None = None


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
class EnsembleMember:
    """One of the scores behind an ensemble's one.

    Attributes:
        name: Within the ensemble.
        revision: Of the folder that it comes from.
        label: Which output of that folder's head; None where it has one.
    """

    name: str
    revision: str
    label: int | None


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a reward service has loaded; `members` is empty for a model that is no ensemble."""

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
    members: tuple[EnsembleMember, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelListing:
    """A model that a reward service has; `kind` is "encoder" or "decoder", `member_count` 0 without members."""

    name: str
    is_default: bool
    revision: str
    kind: str
    member_count: int = 0
