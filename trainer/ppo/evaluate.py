"""What policy, reference policy and critic say about a batch before it is learnt from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from palate.models.logprobs import sampled_logprobs
from trainer.ppo.lanes import Lanes
from trainer.ppo.losses import entropy_from_logits
from trainer.ppo.model import ActorCritic, CausalLM, Critic, Microbatch, collate, microbatches, scatter
from trainer.types import CriticValues, Evaluated, Sequences, length_mask


@dataclass(frozen=True, slots=True)
class ForwardSettings:
    """How forward passes are cut: rows per pass, the id that fills padding, and the sampling temperature."""

    microbatch_size: int
    pad_id: int
    temperature: float


class RefPolicy(Protocol):
    """The frozen start of the policy, wherever it runs."""

    def logprobs(self, sequences: Sequences) -> Tensor:
        """(B, T) at the sampling temperature, 0 at padding."""


class LocalRef:
    """A reference policy held by the trainer."""

    def __init__(self, actor: CausalLM, settings: ForwardSettings) -> None:
        self._actor = actor
        self._settings = settings

    def logprobs(self, sequences: Sequences) -> Tensor:
        """(B, T) at the sampling temperature, 0 at padding."""
        cuts = microbatches(sequences.lengths(), self._settings.microbatch_size)
        temperature = self._settings.temperature
        return in_microbatches(sequences, cuts, self._settings, lambda b: (self._actor.logprobs(b, temperature),))[0]


def evaluate(
    model: ActorCritic,
    ref: RefPolicy,
    sequences: Sequences,
    minibatches: Sequence[Sequence[int]],
    settings: ForwardSettings,
    lanes: Lanes,
) -> Evaluated:
    """One pass of each network over the batch, without gradients.

    Args:
        model: Actor, and critic where there is one.
        ref: The reference policy.
        sequences: The batch.
        minibatches: Rows of the minibatches that the update will begin with. The passes are cut as that first epoch
            will cut its own: float32 sums depend a little on the shape of a batch, and no old logprob shall differ
            from its new one by that.
        settings: How passes are cut.
        lanes: Runs the networks side by side.
    """
    cuts = [cut for rows in minibatches for cut in cut_rows(sequences, rows, settings)]
    (logprobs, entropy), ref_logprobs, critic = lanes.run(
        lambda: in_microbatches(sequences, cuts, settings, lambda batch: _policy_pass(model.actor, batch, settings)),
        lambda: ref.logprobs(sequences),
        lambda: _critic_values(model.critic, sequences, cuts, settings),
    )
    mask = length_mask([len(ids) for ids in sequences.completion_ids])
    return Evaluated(mask, logprobs, ref_logprobs, entropy, critic)


def _critic_values(
    critic: Critic | None, sequences: Sequences, cuts: Sequence[Sequence[int]], settings: ForwardSettings
) -> CriticValues | None:
    if critic is None:
        return None
    return CriticValues(*in_microbatches(sequences, cuts, settings, critic.values_with_final))


@torch.no_grad()
def in_microbatches(
    sequences: Sequences,
    cuts: Sequence[Sequence[int]],
    settings: ForwardSettings,
    compute: Callable[[Microbatch], tuple[Tensor, ...]],
) -> list[Tensor]:
    """Runs `compute` over the rows of each cut and puts its (b, t) and (b,) results together to (B, T) and (B,)."""
    longest = max(len(ids) for ids in sequences.completion_ids)
    whole: list[Tensor] = []
    for rows in cuts:
        parts = compute(collate(sequences.rows(rows), settings.pad_id))
        if not whole:
            whole = [torch.zeros((len(sequences), longest)[: part.dim()]) for part in parts]
        for target, part in zip(whole, parts, strict=True):
            if part.dim() == 2:
                target[rows, : part.shape[1]] = part
            else:
                target[rows] = part
    return whole


def cut_rows(sequences: Sequences, rows: Sequence[int], settings: ForwardSettings) -> list[list[int]]:
    """Some rows of `sequences` in microbatches, as indices into `sequences`."""
    lengths = sequences.rows(rows).lengths()
    return [[rows[index] for index in cut] for cut in microbatches(lengths, settings.microbatch_size)]


def _policy_pass(actor: CausalLM, batch: Microbatch, settings: ForwardSettings) -> tuple[Tensor, Tensor]:
    """(b, t) logprobs and entropy at the sampling temperature."""
    logits = actor.logits(batch)  # (N, V)
    logprobs = sampled_logprobs(logits, batch.targets, settings.temperature)
    entropy = entropy_from_logits(logits.float() / settings.temperature)
    return scatter(logprobs, batch.mask), scatter(entropy, batch.mask)
