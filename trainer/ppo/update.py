"""One PPO update: epochs of minibatches of microbatches over one batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from palate.client.types import PolicyVersion
from trainer.ppo import losses, points
from trainer.ppo.choices import WhitenAdvantages
from trainer.ppo.errors import NotFinite
from trainer.ppo.evaluate import ForwardSettings, RefPolicy, evaluate
from trainer.ppo.invariants import Suspects, check_first_ratios
from trainer.ppo.lanes import Lanes
from trainer.ppo.masked import masked_whiten
from trainer.ppo.model import ActorCritic, Microbatch, collate, microbatches
from trainer.types import Evaluated, Sequences, TrainingBatch

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class UpdateSettings:
    """Hyperparameters of the update; `trainer.config.PPOGroup` says what each means."""

    num_ppo_epochs: int
    num_mini_batches: int
    cliprange: float
    cliprange_value: float
    vf_coef: float
    max_grad_norm: float
    whiten_advantages: WhitenAdvantages
    whiten_unbiased: bool
    ratio_tolerance: float


@dataclass(slots=True)
class UpdateStats:
    """Sums over all minibatches of an update; `means` divides by the tokens."""

    tokens: int = 0
    policy_loss: float = 0.0
    value_loss: float = 0.0
    approx_kl: float = 0.0
    policy_clipped: float = 0.0
    value_clipped: float = 0.0
    ratio_sum: float = 0.0
    ratio_max: float = 0.0
    grad_norms: list[tuple[float, float]] = field(default_factory=list)

    def means(self) -> dict[str, float]:
        """The update's metrics, token means over all epochs."""
        policy_norms, value_norms = zip(*self.grad_norms, strict=True)
        return {
            "policy/approxkl_avg": self.approx_kl / self.tokens,
            "policy/clipfrac_avg": self.policy_clipped / self.tokens,
            "policy/ratio_avg": self.ratio_sum / self.tokens,
            "policy/ratio_max": self.ratio_max,
            "policy/grad_norm_avg": sum(policy_norms) / len(policy_norms),
            "val/clipfrac_avg": self.value_clipped / self.tokens,
            "val/grad_norm_avg": sum(value_norms) / len(value_norms),
            "loss/policy_avg": self.policy_loss / self.tokens,
            "loss/value_avg": self.value_loss / self.tokens,
        }


class Updater:
    """Learns from batches; holds the optimiser and the generator that shuffles.

    Args:
        model: Actor and critic.
        optimizer: Over the model's two parameter groups, actor first.
        settings: Hyperparameters.
        forward: How forward passes are cut.
        lanes: Runs actor and critic side by side.
        shuffler: Draws the order of rows, anew for each epoch.
    """

    def __init__(
        self,
        model: ActorCritic,
        optimizer: Optimizer,
        settings: UpdateSettings,
        forward: ForwardSettings,
        lanes: Lanes,
        shuffler: torch.Generator,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.shuffler = shuffler
        self._settings = settings
        self._forward = forward
        self._lanes = lanes

    def draw_minibatches(self, size: int) -> list[list[int]]:
        """Rows of each minibatch of one epoch over `size` rows; their numbers differ by at most one."""
        count = min(self._settings.num_mini_batches, size)
        order = torch.randperm(size, generator=self.shuffler).tolist()
        return [sorted(order[i * size // count : (i + 1) * size // count]) for i in range(count)]

    def evaluate(self, ref: RefPolicy, sequences: Sequences, first_epoch: Sequence[Sequence[int]]) -> Evaluated:
        """What the networks say about a batch as they are now, which will be learnt from in `first_epoch` first."""
        return evaluate(self.model, ref, sequences, first_epoch, self._forward, self._lanes)

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
        stats, whitening = UpdateStats(), self._settings.whiten_advantages
        if whitening == "batch":
            batch = self._whitened(batch)
        for rows in self._all_minibatches(first_epoch, len(batch.sequences)):
            minibatch = batch.rows(rows)
            if whitening == "minibatch":
                minibatch = self._whitened(minibatch)
            self._step(minibatch, stats, suspects, train_policy)
        return stats

    def accumulate(self, minibatch: TrainingBatch, stats: UpdateStats) -> Tensor:
        """Adds the gradients of one minibatch, microbatch by microbatch; they do not depend on how it is cut.

        Returns:
            (N,) ratios of the minibatch's tokens.
        """
        cuts = microbatches(minibatch.sequences.lengths(), self._forward.microbatch_size)
        parts = [minibatch.rows(rows) for rows in cuts]
        collated = [collate(part.sequences, self._forward.pad_id) for part in parts]
        token_count = int(minibatch.mask.sum())

        def each(backward: Callable[[TrainingBatch, Microbatch, int, UpdateStats], ResultT]) -> list[ResultT]:
            return [backward(part, batch, token_count, stats) for part, batch in zip(parts, collated, strict=True)]

        ratios, _ = self._lanes.run(lambda: each(self._policy_backward), lambda: each(self._value_backward))
        stats.tokens += token_count
        return torch.cat(ratios)

    def _step(self, minibatch: TrainingBatch, stats: UpdateStats, suspects: Suspects, train_policy: bool) -> None:
        is_first = stats.tokens == 0
        self.optimizer.zero_grad(set_to_none=True)
        ratios = self.accumulate(minibatch, stats)
        if is_first:
            check_first_ratios(ratios, self._settings.ratio_tolerance, suspects)
        stats.grad_norms.append((self._clip(self.model.actor, "policy"), self._clip(self.model.critic, "value")))
        if not train_policy:
            self.model.actor.zero_grad(set_to_none=True)
        self.optimizer.step()
        points.reach("minibatch")

    def _policy_backward(self, part: TrainingBatch, batch: Microbatch, token_count: int, stats: UpdateStats) -> Tensor:
        """Adds the policy loss' gradient; returns the (N,) ratios."""
        new_logprobs = self.model.actor.logprobs(batch, self._forward.temperature)
        arguments = (new_logprobs, part.old_logprobs, part.advantages, part.mask, self._settings.cliprange)
        loss = losses.policy_loss(*arguments, token_count)
        torch.autograd.backward(loss)
        with torch.no_grad():
            ratios = losses.ratios(new_logprobs, part.old_logprobs, part.mask)
            stats.policy_loss += loss.item() * token_count
            stats.approx_kl += losses.approx_kl(new_logprobs, part.old_logprobs, part.mask).item()
            stats.policy_clipped += losses.policy_clipped(*arguments).item()
            stats.ratio_sum += ratios.sum().item()
            stats.ratio_max = max(stats.ratio_max, ratios.max().item())
        return ratios

    def _value_backward(self, part: TrainingBatch, batch: Microbatch, token_count: int, stats: UpdateStats) -> None:
        """Adds the value loss' gradient, times `vf_coef`."""
        values = self.model.critic.values(batch)
        arguments = (values, part.old_values, part.returns, part.mask, self._settings.cliprange_value)
        loss = losses.value_loss(*arguments, token_count)
        torch.autograd.backward(self._settings.vf_coef * loss)
        with torch.no_grad():
            stats.value_loss += loss.item() * token_count
            stats.value_clipped += losses.value_clipped(*arguments).item()

    def _all_minibatches(self, first_epoch: Sequence[Sequence[int]], size: int) -> Iterator[Sequence[int]]:
        yield from first_epoch
        for _ in range(1, self._settings.num_ppo_epochs):
            yield from self.draw_minibatches(size)

    def _whitened(self, batch: TrainingBatch) -> TrainingBatch:
        unbiased = self._settings.whiten_unbiased
        return replace(batch, advantages=masked_whiten(batch.advantages, batch.mask, unbiased=unbiased))

    def _clip(self, network: Any, name: str) -> float:
        """Clips one network's gradient on its own: they share no parameter, so neither shall shrink the other's."""
        norm = float(clip_grad_norm_(network.parameters(), self._settings.max_grad_norm))
        if not math.isfinite(norm):
            raise NotFinite(
                f"the {name} gradient has norm {norm}. Lower the learning rate, clip scores (--scoring.clip), or look "
                "for extreme scores in rollouts.jsonl; then --resume from the last checkpoint"
            )
        return norm
