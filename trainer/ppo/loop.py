"""PPO on one page: prompts → rollouts → scored rollouts → rewards → advantages → update → publish."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from palate.client.types import PolicyVersion
from trainer.ppo import points
from trainer.ppo.batch import ShapingSettings, shape_scores, training_batch
from trainer.ppo.evaluate import RefPolicy
from trainer.ppo.fill import DropLimit
from trainer.ppo.idle import Workload, idle_metrics
from trainer.ppo.invariants import check_behaviour, check_mask
from trainer.ppo.kl import KLController, batch_kl
from trainer.ppo.metrics import (
    StageClock,
    group_metrics,
    importance_metrics,
    objective_metrics,
    rollout_metrics,
    staleness_metrics,
    value_metrics,
)
from trainer.ppo.optimizer import anneal
from trainer.ppo.prompts import PromptSource
from trainer.ppo.publish import WeightPublisher
from trainer.ppo.rollouts import RolloutCollector
from trainer.ppo.scoring import Scorer
from trainer.ppo.state import RunState
from trainer.ppo.supply import Supply
from trainer.ppo.update import Updater
from trainer.ppo.watch import End, EndReason
from trainer.types import FilledBatch, Sequences


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """What the loop itself decides."""

    total_steps: int
    batch_size: int
    group_size: int
    anneal: bool
    critic_warmup_steps: int
    behaviour_tolerance: float
    tis_cap: float | None


@dataclass(frozen=True, slots=True)
class Stages:
    """Everything the loop works with, put together by `run.py`."""

    settings: LoopSettings
    shaping: ShapingSettings
    ref: RefPolicy
    prompts: PromptSource
    publisher: WeightPublisher
    collector: RolloutCollector
    scorer: Scorer
    drop_limit: DropLimit
    supply: Supply
    updater: Updater
    workload: Workload


Report = Callable[[RunState, dict[str, float], FilledBatch, Sequence[float]], End | None]
"""Gets the state after a step, its metrics, its rollouts, and (B,) the scores as rewarded; may end the run."""


def train(
    stages: Stages, state: RunState, controller: KLController, report: Report
) -> tuple[RunState, PolicyVersion, End]:
    """Runs the steps that are left, or until a brake; the policy service serves the last weights in the end."""
    end: End | None = None
    while end is None and state.step < stages.settings.total_steps:
        state, controller, end = train_step(stages, state, controller, report)
    version = stages.publisher.publish(stages.updater.model.actor.model, state.step)
    return state, version, end or End(EndReason.STEPS, state.step, "all steps are done")


def train_step(
    stages: Stages, state: RunState, controller: KLController, report: Report
) -> tuple[RunState, KLController, End | None]:
    """One batch: sampled, scored, learnt from; where rollouts run ahead, the next ones are sampled meanwhile."""
    settings, clock, busy_before = stages.settings, StageClock(), stages.workload.seconds()

    with clock.stage("publish"):
        version = stages.publisher.publish(stages.updater.model.actor.model, state.step)

    supplied = stages.supply.take(state, version, clock)
    filled = supplied.filled
    staleness = staleness_metrics(filled, state.step)
    rollouts = [scored.rollout for scored in filled.scored]

    points.reach("evaluate")
    with clock.stage("evaluate"):
        first_epoch = stages.updater.draw_minibatches(len(rollouts))
        evaluated = stages.updater.evaluate(stages.ref, Sequences.of(rollouts), first_epoch)
    check_mask(evaluated.mask, rollouts)
    suspects = stages.updater.suspects(version)
    deviation = check_behaviour(
        evaluated.old_logprobs, evaluated.mask, rollouts, settings.behaviour_tolerance, suspects
    )

    raw_scores, scores = shape_scores(filled.scored, state.scale, stages.shaping)
    kl = batch_kl(evaluated)
    kl_coef = controller.coefficient(kl)
    batch, shaped = training_batch(filled.scored, scores, evaluated, kl_coef, stages.shaping)

    points.reach("update")
    with clock.stage("update"):
        if settings.anneal:
            anneal(stages.updater.optimizer, state.step, settings.total_steps)
        train_policy = state.step >= settings.critic_warmup_steps
        stats = stages.updater.update(batch, first_epoch, suspects, train_policy=train_policy)

    if train_policy:  # else the KL is 0 whatever the coefficient
        controller = controller.updated(kl, settings.batch_size)
    state = replace(
        state,
        step=state.step + 1,
        position=supplied.position,
        kl_coef=controller.kl_coef,
        drop_window=supplied.drop_window,
    )
    metrics = {
        **objective_metrics(raw_scores, scores, evaluated, shaped, kl, kl_coef),
        **rollout_metrics(filled),
        **staleness,
        **group_metrics(shaped, settings.group_size),
        **importance_metrics(batch, settings.tis_cap),
        **value_metrics(batch),
        **stats.means(),
        "publish/bytes": stages.publisher.sent_bytes,
        "policy/learning_rate": stages.updater.optimizer.param_groups[0]["lr"],
        **idle_metrics(busy_before, stages.workload.seconds(), clock.seconds()),
        **clock.metrics(),
    }
    if deviation is not None:
        metrics["policy/behaviour_deviation"] = deviation
    return state, controller, report(state, metrics, filled, scores.tolist())
