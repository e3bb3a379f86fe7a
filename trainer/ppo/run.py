"""A PPO run from its configuration to the trained model folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from palate.client.types import PolicyVersion
from trainer.config import PPOConfig
from trainer.exposure import Vitals
from trainer.lora import base_digest, has_adapters, merged_model, save_adapter_folder
from trainer.metrics import MetricsWriter
from trainer.model_folder import save_model_folder
from trainer.ppo import identity, points, strict
from trainer.ppo.build import load_policy
from trainer.ppo.checkpoint import CheckpointFolder, Restored
from trainer.ppo.connect import connect_policy
from trainer.ppo.connect_rewards import ServiceReward, connect_gold, connect_rewards, revisions_of
from trainer.ppo.fill import fill_batch
from trainer.ppo.idle import Workload
from trainer.ppo.invariants import check_pad_token
from trainer.ppo.loop import Stages, train
from trainer.ppo.ranks import follow
from trainer.ppo.record import RunDisplay, samples_markdown
from trainer.ppo.ref import RemoteRef
from trainer.ppo.rewards import ScoreScale, score_scale
from trainer.ppo.setup import (
    check_brakes,
    make_controller,
    make_prompts,
    make_publisher,
    make_stages,
    make_updater,
    make_watch,
    open_ref,
)
from trainer.ppo.state import RunIdentity, RunState
from trainer.ppo.store import RolloutStore
from trainer.ppo.team import Team, joined
from trainer.ppo.update import Updater
from trainer.ppo.watch import End, Watch, forget_end, write_end
from trainer.run_folder import held
from trainer.types import FilledBatch, ScoredRollout

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PPOResult:
    """What a run has made.

    Attributes:
        model_folder: The trained policy, ready to be served.
        steps: Steps that are done.
        version: The weights that the policy service serves now; those of `model_folder`.
        reward_revisions: Name → revision of what was trained against.
        scale: How scores were standardised, where they were.
        metrics: Of the last step; empty where a resumed run had nothing left to do.
        end: Why it ended there.
    """

    model_folder: Path
    steps: int
    version: PolicyVersion
    reward_revisions: Mapping[str, str]
    scale: ScoreScale | None
    metrics: Mapping[str, float]
    end: End


def run_ppo(config: PPOConfig) -> PPOResult:
    """Trains until `total_steps` are done, in this process or as rank 0 of several.

    Raises:
        As `run_rank`.
    """
    result = run_rank(config)
    assert result is not None, "ranks that follow have no result: run_rank"
    return result


def run_rank(config: PPOConfig) -> PPOResult | None:
    """This process' part of a run; None where it follows another.

    Raises:
        TrainingError: The run cannot start or go on (see `trainer.ppo.errors`).
        DataError: The file of prompts cannot be used.
        CallError: A service refuses the trainer.
        FolderError: A model folder is broken.
    """
    with joined(config.distributed, config.device, config.collective_timeout) as team, ExitStack() as stack:
        if config.strict:
            strict.compute_deterministically(stack)
        if team.rank == 0:
            return _lead(config, team, stack)
        _follow(config, team, stack)
        return None


def _follow(config: PPOConfig, team: Team, stack: ExitStack) -> None:
    """Another rank's part of a run: it learns its rows, and talks to rank 0 alone."""
    updater, ref = make_updater(config, load_policy(config.policy)[1], stack, team)
    follow(updater, ref, team)


def _lead(config: PPOConfig, team: Team, stack: ExitStack) -> PPOResult:
    """Rank 0's part of a run, which is all of it where there is no other."""
    identity.check(config)
    workload, vitals = Workload(), Vitals()
    manifest, renderer = load_policy(config.policy)
    check_pad_token(renderer.pad_id, renderer.eos_id)
    replicas = connect_policy(config, renderer, stack)
    prompts = make_prompts(config, renderer, replicas)
    updater, local_ref = make_updater(config, renderer, stack, team)
    ref = local_ref or open_ref(config, renderer, workload, stack)
    checkpoints = CheckpointFolder(config.out / "checkpoints", config.record.keep_checkpoints)
    restored = updater.restore(checkpoints) if config.resume else None
    rewards = connect_rewards(config, stack, restored.identity.reward_revisions if restored else None)
    check_brakes(config, rewards)
    gold = connect_gold(config, stack)
    ref_info = ref.info if isinstance(ref, RemoteRef) else None
    reward_infos = {each.config.name: each.info for each in rewards if isinstance(each, ServiceReward)}
    bits = strict.bits_of(config, team.size, replicas.shard_prompts, replicas.infos, ref_info, reward_infos)
    if restored:
        strict.check_resumed(restored.identity.bits, bits, strict=config.strict)

    base = base_digest(updater.model.actor.model)
    if restored:
        identity.check_base(restored.identity.base, base)

    stack.enter_context(held(config.out))
    start = identity.begin(config)
    revisions = revisions_of(rewards)
    me = RunIdentity(start.run_id, start.incarnation, revisions, bits, base)
    publisher = make_publisher(config, me, replicas, updater.model, workload, vitals)
    drop_window = restored.state.drop_window if restored else ()
    stages = make_stages(config, updater, ref, prompts, publisher, replicas, rewards, drop_window, workload, stack)

    state = _first_state(config, stages, restored, revisions)
    watch = make_watch(config, gold, state.step)
    forget_end(config.out)
    recorder = _Recorder(config, checkpoints, updater, me, state.step, watch, vitals, stack)
    state, version, end = train(stages, state, make_controller(config, state.kl_coef), recorder)
    points.reach("model")
    actor = updater.model.actor.model
    if has_adapters(actor):
        save_adapter_folder(actor, config.policy, config.out / "adapter")
    folder = save_model_folder(merged_model(actor), config.policy, manifest, config.out / "model")
    write_end(config.out, end)
    _report(config.out)
    return PPOResult(folder, state.step, version, revisions, state.scale, recorder.last, end)


def _report(out: Path) -> None:
    from trainer.ppo.report import write_report  # slow to import

    write_report(out)


def score_start(config: PPOConfig, stages: Stages, step: int) -> tuple[ScoredRollout, ...]:
    """Scored completions of the policy as it is now, none of which is learnt from."""
    version = stages.publisher.publish(stages.updater.model.actor.model, step)
    return fill_batch(
        config.scoring.standardize_samples,
        group_size=1,
        draw=partial(stages.prompts.draw, "start", 0),
        roll=lambda draws: stages.collector.collect(draws, version),
        score=stages.scorer.score,
        limit=stages.drop_limit,
    ).scored


def _first_state(
    config: PPOConfig, stages: Stages, restored: Restored | None, revisions: Mapping[str, str]
) -> RunState:
    """Where the run begins or goes on; scores are measured where nothing says how they are scaled."""
    state = restored.state if restored else RunState(0, 0, config.ppo.kl_coef, None)
    if changed := bool(restored and restored.identity.reward_revisions != revisions):
        state = replace(state, scale=None, reward_scales={})
    standardized = [reward.name for reward in config.reward_list() if reward.transform == "standardize"]
    unknown = config.scoring.standardize and state.scale is None
    if unknown or state.reward_scales.keys() != set(standardized):
        if changed:
            _LOG.warning("another reward model: its scores are standardised by those of the policy as it is now")
        state = _measured(config, stages, state, standardized)
    stages.scorer.standardize_by(state.reward_scales)
    return state


def _measured(config: PPOConfig, stages: Stages, state: RunState, standardized: Sequence[str]) -> RunState:
    """The scale of every reward that is standardised, and then of the score that they make together."""
    scored = score_start(config, stages, state.step)
    scales = {
        column[0].name: score_scale(f"reward {column[0].name}", [each.score for each in column])
        for column in zip(*(one.components for one in scored), strict=True)
        if column[0].name in standardized
    }
    stages.scorer.standardize_by(scales)
    together = [stages.scorer.combined(one.components) for one in scored]
    scale = score_scale("the score", together) if config.scoring.standardize else None
    return replace(state, scale=scale, reward_scales=scales)


class _Recorder:
    """Writes down every step: metrics, rollouts, samples, checkpoints, progress."""

    def __init__(
        self,
        config: PPOConfig,
        checkpoints: CheckpointFolder,
        updater: Updater,
        me: RunIdentity,
        done: int,
        watch: Watch,
        vitals: Vitals,
        stack: ExitStack,
    ) -> None:
        self._watch = watch
        self.last: dict[str, float] = {}
        self._config = config
        self._checkpoints = checkpoints
        self._updater = updater
        self._identity = me
        self._writer = stack.enter_context(MetricsWriter(config.out, config.record.exposure(), done, vitals))
        record = config.record
        self._rollouts = stack.enter_context(
            RolloutStore(config.out, record.rollout_file_steps, record.max_rollout_bytes, done)
        )
        self._display = stack.enter_context(
            RunDisplay(config.out, config.total_steps, done, visible=config.record.progress)
        )

    def __call__(
        self, state: RunState, metrics: dict[str, float], filled: FilledBatch, shaped_scores: Sequence[float]
    ) -> End | None:
        metrics |= self._watch.look(filled.scored)
        record, self.last = self._config.record, self._writer.log(state.step, metrics)
        end = self._watch.brake({"step": state.step, **self.last})
        points.reach("record")
        self._rollouts.write(state.step, filled.scored, shaped_scores)
        self._display.advance(state.step, self.last)
        is_last = end is not None or state.step == self._config.total_steps
        if state.step % record.samples_every == 0 or is_last or state.step == 1:
            shown = filled.scored[: record.samples]
            self._display.show_samples(state.step, shown)
            self._writer.log_text(state.step, "samples", samples_markdown(shown))
        if state.step % record.checkpoint_every == 0 or is_last:
            self._rollouts.finish_file()
            self._checkpoints.save(*self._updater.whole(), state, self._identity)
        return end
