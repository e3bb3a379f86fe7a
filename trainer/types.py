"""Values that pass from one stage of training to the next; plain and immutable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import TypeAlias

import torch
from torch import Tensor

from palate.client.types import FinishReason, PolicyVersion, VersionSpan


@dataclass(frozen=True, slots=True)
class PromptDraw:
    """A prompt drawn for one place in a batch.

    Attributes:
        text: The prompt.
        prompt_ids: Its tokens as the trainer renders them.
        seed: What its completion is sampled with; the same run, step and place give the same seed.
    """

    text: str
    prompt_ids: tuple[int, ...]
    seed: int


@dataclass(frozen=True, slots=True)
class Rollout:
    """A prompt with its sampled completion.

    Attributes:
        prompt: Text of the prompt.
        completion: Text of the completion, without special tokens.
        prompt_ids: What the policy read.
        completion_ids: What it drew, (T,), the end-of-sequence token included where it was drawn.
        behaviour_logprobs: (T,) as sampled, at the sampling temperature.
        finish_reason: LENGTH means that it was cut off.
        policy_versions: Which weights drew which of its tokens: the first span from token 0, each to where the next
            begins; more than one where a publication interrupted it.
        seed: What it was sampled with.
    """

    prompt: str
    completion: str
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    behaviour_logprobs: tuple[float, ...]
    finish_reason: FinishReason
    policy_versions: tuple[VersionSpan, ...]
    seed: int

    @property
    def truncated(self) -> bool:
        """Whether the length limit ended it."""
        return self.finish_reason is FinishReason.LENGTH

    @property
    def oldest_version(self) -> PolicyVersion:
        """Of the weights that drew it those of the earliest step, by which it is stale."""
        return min((span.version for span in self.policy_versions), key=lambda version: version.step)

    @property
    def interrupted(self) -> bool:
        """Whether not all of it was drawn by the same weights."""
        return len(self.policy_versions) > 1

    def drawn_by(self, version: PolicyVersion) -> tuple[bool, ...]:
        """(T,) which of its tokens these weights drew."""
        starts = [span.first_token for span in self.policy_versions]
        spans = zip(self.policy_versions, pairwise([*starts, len(self.completion_ids)]), strict=True)
        return tuple(span.version == version for span, (begin, end) in spans for _ in range(begin, end))


@dataclass(frozen=True, slots=True)
class ComponentScore:
    """What one of a run's rewards gives.

    Attributes:
        name: Of the reward.
        score: Its raw score.
        revision: Of what gave it.
        std: How far an ensemble's members are apart, in the unit of the score; None where there are no members.
    """

    name: str
    score: float
    revision: str
    std: float | None = None


@dataclass(frozen=True, slots=True)
class ScoredRollout:
    """A rollout with the score of its completion.

    Attributes:
        rollout: What was sampled.
        score: The reward model's raw score; of several rewards, the weighted sum of what their transforms make.
        revision: Of the reward model; of several rewards, a digest of all of theirs.
        components: What each reward gave, where the run has put them together.
        std: How far an ensemble's members are apart, where a single reward gave the score and has some.
    """

    rollout: Rollout
    score: float
    revision: str
    components: tuple[ComponentScore, ...] = ()
    std: float | None = None


class DropCause(StrEnum):
    """Why a rollout fell out: the codes of the reward service's item errors, a service that is away, old weights; or
    that the policy service never drew it whole, since its engine failed on it, or it was late.
    """

    INVALID = "INVALID"
    TOO_LONG = "TOO_LONG"
    EXPIRED = "EXPIRED"
    OVERLOADED = "OVERLOADED"
    CANCELLED = "CANCELLED"
    FAILED = "FAILED"
    UNAVAILABLE = "UNAVAILABLE"
    STALE = "STALE"
    DRAW_FAILED = "DRAW_FAILED"
    DRAW_EXPIRED = "DRAW_EXPIRED"


@dataclass(frozen=True, slots=True)
class DroppedRollout:
    """A rollout that got no score after all retries, or was too old to be learnt from, and why. It has no score, not
    even 0.

    Attributes:
        rollout: What was sampled.
        cause: Why, for counting.
        message: Why, in the words of the service where it is the service's; holds no text of the rollout.
    """

    rollout: Rollout
    cause: DropCause
    message: str

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """What was continued."""
        return self.rollout.prompt_ids


@dataclass(frozen=True, slots=True)
class DroppedDraw:
    """A draw that the policy service gave no completion for after all retries, and why. There is nothing to score.

    Attributes:
        draw: What was asked for.
        cause: Why, for counting.
        message: Why, in the words of the service; holds no text of the prompt.
    """

    draw: PromptDraw
    cause: DropCause
    message: str

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """What was to be continued."""
        return self.draw.prompt_ids


Dropped: TypeAlias = DroppedRollout | DroppedDraw
"""What fell out of a batch: what has no score, or not even a completion."""


@dataclass(frozen=True, slots=True)
class FilledBatch:
    """As many scored rollouts as a batch needs, and those that fell out on the way.

    Attributes:
        scored: Group by group: the completions of one prompt stand one after the other, as many for each prompt.
        dropped: Those that got no completion or no score, and those that had become too old.
        prompts: How many prompts were drawn, those without a scored completion among them.
    """

    scored: tuple[ScoredRollout, ...]
    dropped: tuple[Dropped, ...]
    prompts: int


@dataclass(frozen=True, slots=True)
class Sequences:
    """Token ids of a batch, ragged.

    Attributes:
        prompt_ids: One tuple per row.
        completion_ids: One tuple per row, none empty.
    """

    prompt_ids: tuple[tuple[int, ...], ...]
    completion_ids: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, rollouts: Sequence[Rollout]) -> Sequences:
        """Those of `rollouts`."""
        return cls(tuple(r.prompt_ids for r in rollouts), tuple(r.completion_ids for r in rollouts))

    def __len__(self) -> int:
        return len(self.completion_ids)

    def lengths(self) -> list[int]:
        """(B,) tokens of prompt and completion."""
        return [len(p) + len(c) for p, c in zip(self.prompt_ids, self.completion_ids, strict=True)]

    def rows(self, indices: Sequence[int]) -> Sequences:
        """Some rows, in the order of `indices`."""
        return Sequences(tuple(self.prompt_ids[i] for i in indices), tuple(self.completion_ids[i] for i in indices))


@dataclass(frozen=True, slots=True)
class CriticValues:
    """What the critic says about a batch.

    Attributes:
        values: (B, T) before each token.
        final_values: (B,) behind the last token.
    """

    values: Tensor
    final_values: Tensor


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What the networks say about a batch before it is learnt from; T is the longest completion.

    Attributes:
        mask: (B, T) bool, real completion tokens.
        old_logprobs: (B, T) under the policy's weights as they are now, recomputed by the trainer.
        ref_logprobs: (B, T) under the reference policy.
        entropy: (B, T) of the policy's distributions, in nats.
        critic: What the critic says; None where the estimator needs none.
    """

    mask: Tensor
    old_logprobs: Tensor
    ref_logprobs: Tensor
    entropy: Tensor
    critic: CriticValues | None


@dataclass(frozen=True, slots=True)
class ValueTargets:
    """What the critic learns: (B, T) its values before the update, and the returns they should have been."""

    old_values: Tensor
    returns: Tensor


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """What one update learns from: token ids and (B, T) tensors, 0 at padding.

    Attributes:
        sequences: Prompts and completions.
        mask: Real completion tokens.
        old_logprobs: Under the policy before the update, recomputed by the trainer.
        behaviour_logprobs: As the policy service recorded them when it drew the tokens.
        ref_logprobs: Under the reference policy.
        advantages: What the estimator made of the rewards.
        critic: What the critic learns; None where there is none.
        kl_coef: Weight of the KL in the loss; 0 where the reward holds it.
    """

    sequences: Sequences
    mask: Tensor
    old_logprobs: Tensor
    behaviour_logprobs: Tensor
    ref_logprobs: Tensor
    advantages: Tensor
    critic: ValueTargets | None
    kl_coef: float

    def rows(self, indices: Sequence[int]) -> TrainingBatch:
        """Some rows, cut to the longest completion among them."""
        longest = max(len(self.sequences.completion_ids[i]) for i in indices)
        index = torch.as_tensor(indices)

        def cut(tensor: Tensor) -> Tensor:
            return tensor[index, :longest]

        return TrainingBatch(
            self.sequences.rows(indices),
            cut(self.mask),
            cut(self.old_logprobs),
            cut(self.behaviour_logprobs),
            cut(self.ref_logprobs),
            cut(self.advantages),
            self.critic and ValueTargets(cut(self.critic.old_values), cut(self.critic.returns)),
            self.kl_coef,
        )


def padded(rows: Sequence[Sequence[float]]) -> Tensor:
    """(B, T) float32 from ragged rows, 0 behind each row's end."""
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row, dtype=torch.float32) for row in rows], batch_first=True)


def length_mask(lengths: Sequence[int]) -> Tensor:
    """(B, T) bool, True at the first `lengths[i]` positions of row i; T is the largest length."""
    counts = torch.as_tensor(lengths)
    return torch.arange(int(counts.max())) < counts.unsqueeze(1)
