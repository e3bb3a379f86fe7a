"""One PPO update: epochs of minibatches of microbatches over one batch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from palate.client.types import PolicyVersion
from trainer.ppo import losses, points
from trainer.ppo.checkpoint import CheckpointFolder, Restored, Stateful
from trainer.ppo.choices import KLPlace, LossAggregation, WhitenAdvantages
from trainer.ppo.errors import NotFinite
from trainer.ppo.evaluate import ForwardSettings, RefPolicy, evaluate
from trainer.ppo.invariants import Suspects, check_first_ratios
from trainer.ppo.kl import k2, k3
from trainer.ppo.lanes import Lanes
from trainer.ppo.masked import masked_whiten
from trainer.ppo.model import ActorCritic, Microbatch, collate
from trainer.ppo.parallel import Networks, alone, whole
from trainer.ppo.stats import UpdateStats
from trainer.ppo.team import Cut, Team
from trainer.types import Evaluated, Sequences, TrainingBatch


@dataclass(frozen=True, slots=True)
class UpdateSettings:
    """Hyperparameters of the update; `trainer.config.PPOGroup` says what each means."""

    num_ppo_epochs: int
    num_mini_batches: int
    cliprange: float
    dual_clip: float | None
    tis_cap: float | None
    kl_place: KLPlace
    loss_aggregation: LossAggregation
    max_new_tokens: int
    cliprange_value: float
    vf_coef: float
    max_grad_norm: float
    whiten_advantages: WhitenAdvantages
    whiten_unbiased: bool
    ratio_tolerance: float


@dataclass(frozen=True, slots=True)
class _Part:
    """A microbatch: its rows of the minibatch, ready for a forward pass.

    Attributes:
        batch: What to learn from.
        inputs: The sequences as networks take them.
        policy_weights: (B, T) what each token counts in the minibatch's policy loss.
        value_weights: (B, T) the same for the value loss, which is always a token mean.
        tokens: In the whole minibatch.
        counts: False where it only keeps step with other ranks: its weights are 0, and nothing is watched.
        last: Behind it all gradients of the minibatch are there.
    """

    batch: TrainingBatch
    inputs: Microbatch
    policy_weights: Tensor
    value_weights: Tensor
    tokens: int
    counts: bool
    last: bool


class Updater:
    """Learns from batches; holds the optimiser and the generator that shuffles.

    Args:
        model: Actor, and critic where there is one: whole and on the CPU, for whoever publishes or keeps them.
        optimizer: Over the parameter groups of what computes, actor first.
        settings: Hyperparameters.
        forward: How forward passes are cut.
        lanes: Runs actor and critic side by side.
        shuffler: Draws the order of rows, anew for each epoch.
        networks: What computes; by default `model` itself.
        team: The ranks that learn together.
    """

    def __init__(
        self,
        model: ActorCritic,
        optimizer: Optimizer,
        settings: UpdateSettings,
        forward: ForwardSettings,
        lanes: Lanes,
        shuffler: torch.Generator,
        networks: Networks | None = None,
        team: Team = Team(),
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.shuffler = shuffler
        self._settings = settings
        self._forward = forward
        self._lanes = lanes
        self.networks = networks or alone(model)
        self._team = team

    def whole(self) -> tuple[ActorCritic, Stateful, torch.Generator]:
        """Everything that a checkpoint keeps of what learns."""
        return self.model, self.optimizer, self.shuffler

    def restore(self, checkpoints: CheckpointFolder) -> Restored | None:
        """Goes back to the newest checkpoint; None where there is none.

        Raises:
            CheckpointRefused: As `CheckpointFolder.restore`.
        """
        return checkpoints.restore(self.model, self.optimizer, self.shuffler)

    def draw_minibatches(self, size: int) -> list[list[int]]:
        """Rows of each minibatch of one epoch over `size` rows; their numbers differ by at most one."""
        count = min(self._settings.num_mini_batches, size)
        order = torch.randperm(size, generator=self.shuffler).tolist()
        return [sorted(order[i * size // count : (i + 1) * size // count]) for i in range(count)]

    def evaluate(self, ref: RefPolicy | None, sequences: Sequences, first_epoch: Sequence[Sequence[int]]) -> Evaluated:
        """What the networks say about a batch as they are now, which will be learnt from in `first_epoch` first."""
        model = self.networks.model
        return evaluate(model, ref, sequences, first_epoch, self._forward, self._lanes, self._team)

    def suspects(self, version: PolicyVersion) -> Suspects:
        """Where to look when a batch drawn from `version` does not fit the networks."""
        return Suspects(self.model, self.model.actor.model, version, self._forward.temperature)

    def update(
        self,
        batch: TrainingBatch,
        first_epoch: Sequence[Sequence[int]],
        suspects: Suspects,
        *,
        train_policy: bool = True,
    ) -> UpdateStats:
        """All epochs over `batch`, each in an order of its own.

        Args:
            batch: What to learn from.
            first_epoch: Minibatches of the first epoch; further ones are drawn.
            suspects: Where to look when the first minibatch does not start at ratio 1.
            train_policy: False leaves the actor as it is (critic warm-up).

        Raises:
            NotFinite: A gradient is infinite or not a number; the step was not taken.
            InvariantViolated: The first minibatch does not start at ratio 1.
        """
        minibatches = list(self._all_minibatches(first_epoch, len(batch.sequences)))
        return self.learn(batch, minibatches, suspects, train_policy=train_policy)

    def learn(
        self,
        batch: TrainingBatch,
        minibatches: Sequence[Sequence[int]],
        suspects: Suspects | None,
        *,
        train_policy: bool,
    ) -> UpdateStats:
        """An optimiser step for each of `minibatches`, rows of `batch`; None for `suspects` checks no ratios."""
        stats, whitening = UpdateStats(), self._settings.whiten_advantages
        if whitening == "batch":
            batch = self._whitened(batch)
        for rows in minibatches:
            minibatch = batch.rows(rows)
            if whitening == "minibatch":
                minibatch = self._whitened(minibatch)
            self._step(minibatch, stats, suspects, train_policy)
        return UpdateStats.merged(self._team.gathered(stats))

    def accumulate(self, minibatch: TrainingBatch, stats: UpdateStats) -> Tensor:
        """Adds the gradients of one minibatch, microbatch by microbatch; they do not depend on how it is cut.

        Returns:
            (N,) ratios of the minibatch's tokens; in a team, of this rank's.
        """
        parts = self._parts(minibatch)

        def policy() -> list[Tensor]:
            return [self._policy_backward(part, stats) for part in parts]

        def value() -> None:
            for part in parts:
                self._value_backward(part, stats)

        ratios, _ = self._lanes.run(policy, value)
        stats.tokens += int(minibatch.mask.sum())
        return torch.cat(ratios)

    def _parts(self, minibatch: TrainingBatch) -> list[_Part]:
        settings, mask = self._settings, minibatch.mask
        policy = losses.aggregation_weights(mask, settings.loss_aggregation, settings.max_new_tokens)  # (B, T)
        value = losses.aggregation_weights(mask, "token_mean", settings.max_new_tokens)

        cuts = self._team.cuts(minibatch.sequences.lengths(), self._forward.microbatch_size)

        def part(cut: Cut) -> _Part:
            batch = minibatch.rows(cut.rows)
            inputs = collate(batch.sequences, self._forward.pad_id)
            mine = [w[cut.rows, : batch.mask.shape[1]] * cut.counts for w in (policy, value)]
            return _Part(batch, inputs, mine[0], mine[1], int(mask.sum()), cut.counts, cut is cuts[-1])

        return [part(cut) for cut in cuts]

    def _step(
        self, minibatch: TrainingBatch, stats: UpdateStats, suspects: Suspects | None, train_policy: bool
    ) -> None:
        is_first = stats.tokens == 0
        self.optimizer.zero_grad(set_to_none=True)
        ratios = self.accumulate(minibatch, stats)
        if is_first:
            everywhere = torch.cat(self._team.gathered(ratios))
            if suspects is not None:
                check_first_ratios(everywhere, self._settings.ratio_tolerance, suspects)
        model = self.networks.model
        stats.policy_norms.append(self._clip(model.actor, "policy"))
        if model.critic is not None:
            stats.value_norms.append(self._clip(model.critic, "value"))
        if not train_policy:
            model.actor.zero_grad(set_to_none=True)
        self.optimizer.step()
        points.reach("minibatch")

    def _policy_backward(self, part: _Part, stats: UpdateStats) -> Tensor:
        """Adds the gradient of the policy loss and of the KL in it; returns the (N,) ratios."""
        networks = self.networks
        with nullcontext() if part.last else networks.local():
            new_logprobs: Tensor = networks.actor(part.inputs, self._forward.temperature)
            loss, kl = self._policy_loss(new_logprobs, part), self._kl_loss(new_logprobs, part)
            torch.autograd.backward(networks.loss_scale * (loss + kl))
        if not part.counts:
            return new_logprobs.new_zeros(0)
        with torch.no_grad():
            stats.policy_loss += loss.item() * part.tokens
            stats.kl_loss += kl.item() * part.tokens
            return self._watch_policy(new_logprobs, part.batch, stats)

    def _policy_loss(self, new_logprobs: Tensor, part: _Part) -> Tensor:
        batch, settings = part.batch, self._settings
        token_losses = losses.policy_losses(
            new_logprobs, batch.old_logprobs, batch.advantages, batch.mask, settings.cliprange, settings.dual_clip
        )
        if settings.tis_cap is not None:
            arguments = (batch.old_logprobs, batch.behaviour_logprobs, batch.mask)
            token_losses = token_losses * losses.importance_weights(*arguments, settings.tis_cap)
        return losses.weighted_sum(token_losses, part.policy_weights)

    def _kl_loss(self, new_logprobs: Tensor, part: _Part) -> Tensor:
        """kl_coef times k2 or k3 of the weights being trained; 0 where the reward holds the KL."""
        batch = part.batch
        if self._settings.kl_place == "reward_k1":
            return new_logprobs.new_zeros(())
        estimate = k2 if self._settings.kl_place == "loss_k2" else k3
        return batch.kl_coef * losses.weighted_sum(estimate(new_logprobs, batch.ref_logprobs), part.policy_weights)

    def _watch_policy(self, new_logprobs: Tensor, batch: TrainingBatch, stats: UpdateStats) -> Tensor:
        """Adds what the metrics say of a microbatch; returns its (N,) ratios."""
        arguments = (new_logprobs, batch.old_logprobs, batch.advantages, batch.mask)
        ratios = losses.ratios(new_logprobs, batch.old_logprobs, batch.mask)
        stats.approx_kl += losses.approx_kl(new_logprobs, batch.old_logprobs, batch.mask).item()
        stats.policy_clipped += losses.policy_clipped(*arguments, self._settings.cliprange).item()
        if self._settings.dual_clip is not None:
            stats.dual_clipped += losses.dual_clipped(*arguments, self._settings.dual_clip).item()
        stats.ratio_sum += ratios.sum().item()
        stats.ratio_max = max(stats.ratio_max, ratios.max().item())
        return ratios

    def _value_backward(self, part: _Part, stats: UpdateStats) -> None:
        """Adds the value loss' gradient, times `vf_coef`; nothing where there is no critic."""
        networks, targets, cliprange = self.networks, part.batch.critic, self._settings.cliprange_value
        if networks.critic is None or targets is None:
            return
        with nullcontext() if part.last else networks.local():
            values, _ = networks.critic(part.inputs)
            token_losses = losses.value_losses(values, targets.old_values, targets.returns, cliprange)
            loss = losses.weighted_sum(token_losses, part.value_weights)
            torch.autograd.backward(networks.loss_scale * self._settings.vf_coef * loss)
        if not part.counts:
            return
        with torch.no_grad():
            stats.value_loss += loss.item() * part.tokens
            clipped = losses.value_clipped(values, targets.old_values, targets.returns, part.batch.mask, cliprange)
            stats.value_clipped += clipped.item()

    def _all_minibatches(self, first_epoch: Sequence[Sequence[int]], size: int) -> Iterator[Sequence[int]]:
        yield from first_epoch
        for _ in range(1, self._settings.num_ppo_epochs):
            yield from self.draw_minibatches(size)

    def _whitened(self, batch: TrainingBatch) -> TrainingBatch:
        unbiased = self._settings.whiten_unbiased
        return replace(batch, advantages=masked_whiten(batch.advantages, batch.mask, unbiased=unbiased))

    def _clip(self, network: Any, name: str) -> float:
        """Clips one network's gradient on its own: they share no parameter, so neither shall shrink the other's."""
        norm = float(whole(clip_grad_norm_(network.parameters(), self._settings.max_grad_norm)))
        if not math.isfinite(norm):
            raise NotFinite(
                f"the {name} gradient has norm {norm}. Lower the learning rate, clip scores (--scoring.clip), or look "
                "for extreme scores in rollouts/; then --resume from the last checkpoint"
            )
        return norm
