"""What policy, reference policy and critic say about a batch before it is learnt from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from palate.models.logprobs import sampled_logprobs
from trainer.ppo.lanes import Lanes
from trainer.ppo.losses import entropy_from_logits
from trainer.ppo.model import ActorCritic, CausalLM, Microbatch, collate, microbatches, scatter
from trainer.types import Evaluated, Sequences, length_mask


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
        temperature = self._settings.temperature
        return in_microbatches(sequences, self._settings, lambda b: (self._actor.logprobs(b, temperature),))[0]


def evaluate(
    model: ActorCritic, ref: RefPolicy, sequences: Sequences, settings: ForwardSettings, lanes: Lanes
) -> Evaluated:
    """One pass of each network over the batch, without gradients."""
    (logprobs, entropy), ref_logprobs, (values, final_values) = lanes.run(
        lambda: in_microbatches(sequences, settings, lambda batch: _policy_pass(model.actor, batch, settings)),
        lambda: ref.logprobs(sequences),
        lambda: in_microbatches(sequences, settings, model.critic.values_with_final),
    )
    mask = length_mask([len(ids) for ids in sequences.completion_ids])
    return Evaluated(mask, logprobs, ref_logprobs, entropy, values, final_values)


@torch.no_grad()
def in_microbatches(
    sequences: Sequences, settings: ForwardSettings, compute: Callable[[Microbatch], tuple[Tensor, ...]]
) -> list[Tensor]:
    """Runs `compute` over microbatches and puts its (b, t) and (b,) results together to (B, T) and (B,)."""
    longest = max(len(ids) for ids in sequences.completion_ids)
    whole: list[Tensor] = []
    for rows in microbatches(sequences.lengths(), settings.microbatch_size):
        parts = compute(collate(sequences.rows(rows), settings.pad_id))
        if not whole:
            whole = [torch.zeros((len(sequences), longest)[: part.dim()]) for part in parts]
        for target, part in zip(whole, parts, strict=True):
            if part.dim() == 2:
                target[rows, : part.shape[1]] = part
            else:
                target[rows] = part
    return whole


def _policy_pass(actor: CausalLM, batch: Microbatch, settings: ForwardSettings) -> tuple[Tensor, Tensor]:
    """(b, t) logprobs and entropy at the sampling temperature."""
    logits = actor.logits(batch)  # (N, V)
    logprobs = sampled_logprobs(logits, batch.targets, settings.temperature)
    entropy = entropy_from_logits(logits.float() / settings.temperature)
    return scatter(logprobs, batch.mask), scatter(entropy, batch.mask)
