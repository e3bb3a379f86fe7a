"""The numbers of one step, each a mean over what its name says, padding never counted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import fmean
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

from trainer.distinct import distinct_shares
from trainer.ppo.advantages import grouped_rewards
from trainer.ppo.fill import dropped_counts, mean_lengths
from trainer.ppo.kl import k3
from trainer.ppo.losses import effective_share, explained_variance, importance_weights
from trainer.ppo.masked import masked_mean
from trainer.ppo.rewards import ShapedRewards
from trainer.types import DropCause, Dropped, Evaluated, FilledBatch, ScoredRollout, TrainingBatch

ArgumentsT = ParamSpec("ArgumentsT")
ResultT = TypeVar("ResultT")


class StageClock:
    """Adds up the seconds of each stage."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Counts what runs inside."""
        start = time.monotonic()
        try:
            yield
        finally:
            self._seconds[name] = self._seconds.get(name, 0.0) + time.monotonic() - start

    def timed(self, name: str, function: Callable[ArgumentsT, ResultT]) -> Callable[ArgumentsT, ResultT]:
        """`function`, whose calls count as `name`."""

        def call(*args: ArgumentsT.args, **kwargs: ArgumentsT.kwargs) -> ResultT:
            with self.stage(name):
                return function(*args, **kwargs)

        return call

    def add(self, other: StageClock) -> None:
        """Adds the stages of work that was done elsewhere."""
        for name, seconds in other._seconds.items():
            self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    def seconds(self) -> float:
        """Since the clock was made."""
        return time.monotonic() - self._start

    def metrics(self) -> dict[str, float]:
        """time/<stage> and time/step, in seconds, and which share of the step was spent waiting for rollouts."""
        whole, times = self.seconds(), {f"time/{name}": seconds for name, seconds in self._seconds.items()}
        return {**times, "time/step": whole, "idle/trainer_share": self._seconds.get("wait", 0.0) / whole}


def rollout_metrics(filled: FilledBatch) -> dict[str, float]:
    """How long and varied completions are, what each reward says of them, how many fell out for each cause."""
    rollouts = [scored.rollout for scored in filled.scored]
    kept, dropped = len(filled.scored), len(filled.dropped)
    metrics = {
        **_length_metrics("rollout/", filled.scored),
        **_length_metrics("rollout/dropped_", filled.dropped),
        "rollout/truncated_share": sum(rollout.truncated for rollout in rollouts) / kept,
        "rollout/dropped_share": dropped / (kept + dropped),
        "rollout/mean_distinct_share": fmean(distinct_shares([rollout.completion for rollout in rollouts], 2)),
    }
    counts = dropped_counts(filled.dropped)
    # Zeros too: a gauge would go on showing the last cause.
    metrics |= {f"rollout/dropped_{cause.lower()}": float(counts[cause]) for cause in DropCause}
    return metrics | _component_metrics(filled.scored)


def _length_metrics(prefix: str, outcomes: Sequence[ScoredRollout | Dropped]) -> dict[str, float]:
    """Mean tokens of prompts and completions, as far as there are any."""
    prompt, completion = mean_lengths(outcomes)
    found = {f"{prefix}mean_length": completion, f"{prefix}mean_prompt_length": prompt}
    return {name: value for name, value in found.items() if value is not None}


def _component_metrics(scored: Sequence[ScoredRollout]) -> dict[str, float]:
    """Mean raw score of each of several rewards."""
    columns = list(zip(*(one.components for one in scored), strict=True))
    if len(columns) < 2:
        return {}
    return {f"objective/score_{column[0].name}": fmean(each.score for each in column) for column in columns}


def staleness_metrics(filled: FilledBatch, step: int) -> dict[str, float]:
    """By how many steps the oldest weights that drew rollouts are behind those of `step`, which learn from them, and
    how many rollouts were drawn by more than one of them.
    """
    rollouts = [scored.rollout for scored in filled.scored]
    behind = [step - rollout.oldest_version.step for rollout in rollouts]
    return {
        "rollout/staleness_mean": fmean(behind),
        "rollout/staleness_max": float(max(behind)),
        "rollout/interrupted_share": fmean(rollout.interrupted for rollout in rollouts),
    }


def objective_metrics(
    raw_scores: Tensor, scores: Tensor, evaluated: Evaluated, shaped: ShapedRewards, kl: float, kl_coef: float
) -> dict[str, float]:
    """What is being optimised: (B,) raw scores, (B,) scores as rewarded, and the KL they are paid for with."""
    mask = evaluated.mask
    return {
        "objective/scores": raw_scores.mean().item(),
        "objective/scores_std": raw_scores.std(correction=0).item(),
        "objective/shaped_scores": scores.mean().item(),
        "objective/kl": kl,
        "objective/kl_k3_token": masked_mean(k3(evaluated.old_logprobs, evaluated.ref_logprobs), mask).item(),
        "objective/kl_coef": kl_coef,
        "objective/entropy": -torch.where(mask, evaluated.old_logprobs, 0).sum(1).mean().item(),
        "objective/non_score_reward": shaped.non_score.sum(1).mean().item(),
        "objective/rlhf_reward": (shaped.non_score.sum(1) + scores).mean().item(),
        "policy/entropy_avg": masked_mean(evaluated.entropy, mask).item(),
    }


def group_metrics(shaped: ShapedRewards, group_size: int) -> dict[str, float]:
    """How much the completions of one prompt differ in what they earn; nothing where each prompt has one.

    A group whose members all earn the same teaches an estimator that compares them nothing.
    """
    if group_size == 1:
        return {}
    rewards = grouped_rewards(shaped.rewards, group_size)
    equal = rewards.amax(1) == rewards.amin(1)
    return {
        "group/rewards_std": rewards.std(1).mean().item(),
        "group/equal_share": equal.double().mean().item(),
    }


def importance_metrics(batch: TrainingBatch, cap: float | None) -> dict[str, float]:
    """The weights between what tokens were drawn with and the policy before the update: uncapped, and how many a cap
    cuts.
    """
    weights = importance_weights(batch.old_logprobs, batch.behaviour_logprobs, batch.mask, None)[batch.mask]  # (N,)
    metrics = {
        "policy/importance_mean": weights.mean().item(),
        "policy/importance_max": weights.max().item(),
        "policy/importance_ess": effective_share(weights).item(),
    }
    if cap is not None:
        metrics["policy/importance_capped_share"] = (weights > cap).double().mean().item()
    return metrics


def value_metrics(batch: TrainingBatch) -> dict[str, float]:
    """How good the critic was before it learnt from the batch; nothing where there is none."""
    if batch.critic is None:
        return {}
    values, returns = batch.critic.old_values, batch.critic.returns
    explained = explained_variance(values, returns, batch.mask)
    metrics = {
        "val/mean": masked_mean(values, batch.mask).item(),
        "val/returns_mean": masked_mean(returns, batch.mask).item(),
    }
    return metrics if explained is None else {**metrics, "val/explained_variance": explained}
