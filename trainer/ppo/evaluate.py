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
from trainer.ppo.model import ActorCritic, CausalLM, Critic, Microbatch, collate, scatter
from trainer.ppo.team import Cut, Team
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
    """A reference policy held by the trainer; every rank must ask for logprobs, and gets those of all rows."""

    def __init__(self, actor: CausalLM, settings: ForwardSettings, team: Team = Team()) -> None:
        self._actor = actor
        self._settings = settings
        self._team = team

    def logprobs(self, sequences: Sequences) -> Tensor:
        """(B, T) at the sampling temperature, 0 at padding."""
        cuts = self._team.cuts(sequences.lengths(), self._settings.microbatch_size)
        temperature = self._settings.temperature
        (mine,) = in_microbatches(sequences, cuts, self._settings, lambda b: (self._actor.logprobs(b, temperature),))
        return self._team.total(mine)


def evaluate(
    model: ActorCritic,
    ref: RefPolicy | None,
    sequences: Sequences,
    minibatches: Sequence[Sequence[int]],
    settings: ForwardSettings,
    lanes: Lanes,
    team: Team,
) -> Evaluated:
    """One pass of each network over the batch, without gradients; each rank computes some rows and gets all.

    Args:
        model: Actor, and critic where there is one.
        ref: The reference policy; None on a rank that does not ask it.
        sequences: The batch.
        minibatches: Rows of the minibatches that the update will begin with. The passes are cut as that first epoch
            will cut its own: float32 sums depend a little on the shape of a batch, and no old logprob shall differ
            from its new one by that.
        settings: How passes are cut.
        lanes: Runs the networks side by side.
        team: The ranks.
    """
    cuts = [cut for rows in minibatches for cut in cut_rows(sequences, rows, settings, team)]
    (logprobs, entropy), ref_logprobs, critic = lanes.run(
        lambda: in_microbatches(sequences, cuts, settings, lambda batch: _policy_pass(model.actor, batch, settings)),
        lambda: torch.zeros(()) if ref is None else ref.logprobs(sequences),
        lambda: _critic_values(model.critic, sequences, cuts, settings, team),
    )
    mask = length_mask([len(ids) for ids in sequences.completion_ids])
    return Evaluated(mask, team.total(logprobs), ref_logprobs, team.total(entropy), critic)


def _critic_values(
    critic: Critic | None, sequences: Sequences, cuts: Sequence[Cut], settings: ForwardSettings, team: Team
) -> CriticValues | None:
    if critic is None:
        return None
    return CriticValues(*map(team.total, in_microbatches(sequences, cuts, settings, critic.values_with_final)))


@torch.no_grad()
def in_microbatches(
    sequences: Sequences,
    cuts: Sequence[Cut],
    settings: ForwardSettings,
    compute: Callable[[Microbatch], tuple[Tensor, ...]],
) -> list[Tensor]:
    """Runs `compute` over the rows of each cut and puts its (b, t) and (b,) results together to (B, T) and (B,).

    Rows that are in no cut, or in one that does not count, are 0.
    """
    longest = max(len(ids) for ids in sequences.completion_ids)
    whole: list[Tensor] = []
    for cut in cuts:
        rows = cut.rows
        parts = compute(collate(sequences.rows(rows), settings.pad_id))
        if not whole:
            whole = [torch.zeros((len(sequences), longest)[: part.dim()]) for part in parts]
        for target, part in zip(whole, parts, strict=True) if cut.counts else ():
            if part.dim() == 2:
                target[rows, : part.shape[1]] = part
            else:
                target[rows] = part
    return whole


def cut_rows(sequences: Sequences, rows: Sequence[int], settings: ForwardSettings, team: Team) -> list[Cut]:
    """Some rows of `sequences` in this rank's microbatches, as indices into `sequences`."""
    cuts = team.cuts(sequences.rows(rows).lengths(), settings.microbatch_size)
    return [Cut([rows[index] for index in cut.rows], cut.counts) for cut in cuts]


def _policy_pass(actor: CausalLM, batch: Microbatch, settings: ForwardSettings) -> tuple[Tensor, Tensor]:
    """(b, t) logprobs and entropy at the sampling temperature."""
    logits = actor.logits(batch)  # (N, V)
    logprobs = sampled_logprobs(logits, batch.targets.to(logits.device), settings.temperature)
    entropy = entropy_from_logits(logits.float() / settings.temperature)
    return scatter(logprobs.cpu(), batch.mask), scatter(entropy.cpu(), batch.mask)
