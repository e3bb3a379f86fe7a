"""Makes the stages of a run from its configuration."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

import torch

from palate.client.types import SamplingParams
from palate.models.rendering import Renderer
from trainer.config import PPOConfig
from trainer.data.prompts import read_prompts
from trainer.exposure import Vitals
from trainer.lora import add_adapters, without_adapters
from trainer.metrics import read_metrics
from trainer.ppo.advantages import GAE, GRPO, RLOO, Estimator, ReinforcePP
from trainer.ppo.batch import ShapingSettings
from trainer.ppo.build import build_actor_critic, freeze
from trainer.ppo.combination import Share
from trainer.ppo.connect import PolicyReplicas, open_policy, policy_info
from trainer.ppo.connect_rewards import Reward, ServiceReward
from trainer.ppo.errors import BrakeUnusable
from trainer.ppo.evaluate import ForwardSettings, LocalRef, RefPolicy
from trainer.ppo.fill import DropLimit
from trainer.ppo.fleet import Fleet
from trainer.ppo.hyperparameters import PPOGroup
from trainer.ppo.idle import Workload
from trainer.ppo.kl import AdaptiveKL, FixedKL, KLController
from trainer.ppo.lanes import Lanes
from trainer.ppo.loop import LoopSettings, Stages
from trainer.ppo.lora_payload import LoraPayloads
from trainer.ppo.model import ActorCritic
from trainer.ppo.optimizer import make_optimizer
from trainer.ppo.overlap import OverlapSettings, OverlapSupply
from trainer.ppo.parallel import Networks, shard, spread
from trainer.ppo.patience import patience_of
from trainer.ppo.payload import PayloadMaker, weights_payload
from trainer.ppo.prompts import PromptSource, derive_seed
from trainer.ppo.publish import PublishSettings, WeightPublisher
from trainer.ppo.ranks import LeadingUpdater
from trainer.ppo.ref import RemoteRef
from trainer.ppo.replica import Deadlines
from trainer.ppo.rollouts import RolloutCollector, RolloutSettings
from trainer.ppo.scoring import Component, Scorer
from trainer.ppo.service_scoring import ScorerSettings, ServiceScorer
from trainer.ppo.state import RunIdentity
from trainer.ppo.supply import OnPolicySupply, RolloutSide, Supply
from trainer.ppo.team import Team, local_device
from trainer.ppo.update import Updater, UpdateSettings
from trainer.ppo.watch import Watch


def make_updater(
    config: PPOConfig, renderer: Renderer, stack: ExitStack, team: Team = Team()
) -> tuple[Updater, LocalRef | None]:
    """Networks, optimiser, and the reference policy where it is local, as a new run has them on this rank."""
    device = local_device(config.device)
    lanes = stack.enter_context(Lanes(config.threads, one_by_one=team.size > 1 or device.type != "cpu"))
    torch.manual_seed(derive_seed(config.seed, "torch"))
    model = build_actor_critic(config.policy, config.ppo.critic_init if config.ppo.has_critic else None, renderer)
    if config.lora.rank:
        add_adapters(model.actor.model, config.lora)
    forward = forward_settings(config, renderer)
    networks = spread(model, config.distributed, device, team.size)
    ref = _local_ref(config, model, networks, forward, device, team) if config.services.ref == "local" else None
    shuffler = torch.Generator().manual_seed(derive_seed(config.seed, "shuffle"))
    critic_rate = config.ppo.critic_learning_rate or config.ppo.learning_rate
    groups = networks.model.parameter_groups(config.ppo.learning_rate, critic_rate)
    optimizer = make_optimizer(config.ppo.optimizer, groups, config.ppo.adam_eps)
    leads = team.rank == 0 and (team.size > 1 or networks.model is not model)
    kind = LeadingUpdater if leads else Updater
    kept = model if team.rank == 0 else networks.model  # the others need no whole networks beside their parts
    return kind(kept, optimizer, _update_settings(config), forward, lanes, shuffler, networks, team), ref


def make_stages(
    config: PPOConfig,
    updater: Updater,
    ref: RefPolicy,
    prompts: PromptSource,
    publisher: WeightPublisher,
    replicas: PolicyReplicas,
    rewards: Sequence[Reward],
    drop_window: Sequence[bool],
    workload: Workload,
    stack: ExitStack,
) -> Stages:
    """Everything the loop works with."""
    settings = _rollout_settings(config, replicas.shard_prompts)
    collector = RolloutCollector(publisher.replicas, publisher.catch_up, settings, workload.meter("policy"))
    scorer = Scorer([_component(config, reward, workload) for reward in rewards], {})
    stack.callback(scorer.close)
    drop_limit = DropLimit(config.scoring.max_dropped_share, drop_window)
    group_size = config.sampling.completions_per_prompt
    side = RolloutSide(prompts, collector, scorer, drop_limit, config.ppo.batch_size, group_size)
    return Stages(
        settings=LoopSettings(
            config.total_steps,
            config.ppo.batch_size,
            group_size,
            config.ppo.anneal,
            config.ppo.critic_warmup_steps,
            config.invariants.behaviour_tolerance,
            config.ppo.tis_cap,
        ),
        shaping=_shaping_settings(config),
        ref=ref,
        prompts=prompts,
        publisher=publisher,
        collector=collector,
        scorer=scorer,
        drop_limit=drop_limit,
        supply=_supply(config, side, replicas.fleet, rewards, stack),
        updater=updater,
        workload=workload,
    )


def _supply(config: PPOConfig, side: RolloutSide, fleet: Fleet, rewards: Sequence[Reward], stack: ExitStack) -> Supply:
    """Draws ahead where staleness is allowed; whoever ends the run ends that, and the calls it is in."""
    overlap = config.overlap
    if not overlap.max_staleness:
        return OnPolicySupply(side)

    def hang_up() -> None:
        fleet.close()
        for reward in rewards:
            if isinstance(reward, ServiceReward):
                reward.client.close()

    supply = OverlapSupply(side, OverlapSettings(overlap.max_staleness, overlap.stale, config.total_steps), hang_up)
    stack.callback(supply.close)
    return supply


def make_publisher(
    config: PPOConfig,
    me: RunIdentity,
    replicas: PolicyReplicas,
    model: ActorCritic,
    workload: Workload,
    vitals: Vitals,
) -> WeightPublisher:
    """Publishes to all replicas under the run's name."""
    deadlines = Deadlines(config.services.stage_timeout, config.services.commit_timeout)
    settings = PublishSettings(
        patience_of(config),
        deadlines,
        config.services.full_every,
        _payload_maker(config, model, _served_dtype(replicas)),
        replicas.check,
        copy=config.overlap.max_staleness > 0,
        interrupt=config.overlap.interrupt,
    )
    return WeightPublisher(replicas.fleet, me.run_id, me.incarnation, settings, workload.meter("policy"), vitals)


def _payload_maker(config: PPOConfig, model: ActorCritic, dtype: torch.dtype | None) -> PayloadMaker:
    if config.lora.rank:
        return LoraPayloads(model.actor.model, dtype)
    return partial(weights_payload, dtype=dtype)


def _served_dtype(replicas: PolicyReplicas) -> torch.dtype | None:
    """What the replicas compute in, where that is not the trainer's float32: weights are rounded to it on their way."""
    dtype: torch.dtype = getattr(torch, replicas.infos[0].dtype)
    return None if dtype is torch.float32 else dtype


def make_prompts(config: PPOConfig, renderer: Renderer, replicas: PolicyReplicas) -> PromptSource:
    """The prompts of the run, each with room for a completion.

    Raises:
        DataError: The file is missing or malformed; the message names the line.
        PromptsUnusable: A prompt cannot be rendered, or is too long.
    """
    room = replicas.max_tokens - config.sampling.max_new_tokens
    texts = [row.text for row in read_prompts(config.prompts)]
    return PromptSource(texts, renderer, room, config.seed)


def make_controller(config: PPOConfig, kl_coef: float) -> KLController:
    """Adaptive where a target is given, else fixed."""
    if config.ppo.kl_target is None:
        return FixedKL(kl_coef)
    return AdaptiveKL(kl_coef, config.ppo.kl_target, config.ppo.kl_horizon, config.ppo.kl_gain)


def make_estimator(ppo: PPOGroup, group_size: int) -> Estimator:
    """What makes advantages of rewards."""
    match ppo.estimator:
        case "gae":
            return GAE(ppo.gamma, ppo.lam, ppo.bootstrap_truncated)
        case "grpo":
            return GRPO(group_size, ppo.grpo_by_std, ppo.whiten_unbiased)
        case "rloo":
            return RLOO(group_size)
        case "reinforce_pp":
            return ReinforcePP(ppo.gamma)


def forward_settings(config: PPOConfig, renderer: Renderer) -> ForwardSettings:
    """How forward passes are cut."""
    assert renderer.pad_id is not None  # checked before: a policy without a pad token is refused
    return ForwardSettings(config.ppo.microbatch_size, renderer.pad_id, config.sampling.temperature)


def _local_ref(
    config: PPOConfig,
    model: ActorCritic,
    networks: Networks,
    forward: ForwardSettings,
    device: torch.device,
    team: Team,
) -> LocalRef:
    if config.lora.rank and config.distributed != "fsdp2":
        return LocalRef(without_adapters(networks.model.actor), forward, team)
    actor = freeze(model.actor)
    if config.distributed == "fsdp2":
        shard(actor, device)
    return LocalRef(actor.to(device), forward, team)


def open_ref(config: PPOConfig, renderer: Renderer, workload: Workload, stack: ExitStack) -> RemoteRef:
    """The reference policy as a service."""
    client = open_policy(config.services, config.services.ref, stack)
    info, temperature = policy_info(client, config.services.wait), config.sampling.temperature
    return RemoteRef(client, info, temperature, renderer, patience_of(config), workload.meter("ref"))


def _update_settings(config: PPOConfig) -> UpdateSettings:
    ppo = config.ppo
    return UpdateSettings(
        ppo.num_ppo_epochs,
        ppo.num_mini_batches,
        ppo.cliprange,
        ppo.dual_clip,
        ppo.tis_cap,
        ppo.kl_place,
        ppo.loss_aggregation,
        config.sampling.max_new_tokens,
        ppo.cliprange_value,
        ppo.vf_coef,
        ppo.max_grad_norm,
        ppo.whitening,
        ppo.whiten_unbiased,
        config.invariants.ratio_tolerance,
    )


def _shaping_settings(config: PPOConfig) -> ShapingSettings:
    scoring, ppo = config.scoring, config.ppo
    return ShapingSettings(
        scoring.clip,
        scoring.missing_eos,
        scoring.missing_eos_penalty,
        scoring.min_tokens,
        scoring.short_penalty,
        scoring.variety_bonus,
        ppo.kl_place,
        ppo.whiten_rewards,
        ppo.whiten_unbiased,
        make_estimator(ppo, config.sampling.completions_per_prompt),
    )


def _rollout_settings(config: PPOConfig, shard_prompts: int) -> RolloutSettings:
    drawn = config.sampling
    sampling = SamplingParams(drawn.temperature, max_new_tokens=drawn.max_new_tokens, ignore_eos=drawn.ignore_eos)
    return RolloutSettings(sampling, shard_prompts, patience_of(config), config.services.timeout, strict=config.strict)


def _component(config: PPOConfig, reward: Reward, workload: Workload) -> Component:
    counts = reward.config
    share = Share(counts.name, counts.weight, counts.transform, counts.clip)
    if isinstance(reward, ServiceReward):
        scorer = ServiceScorer(reward.client, _scorer_settings(config, reward), workload.meter("reward"))
        return Component(share, scorer)
    return Component(share, reward.source)


def check_brakes(config: PPOConfig, rewards: Sequence[Reward]) -> None:
    """Looks whether every brake has something to look at.

    Raises:
        BrakeUnusable: The run is to end by the disagreement of an ensemble, and none of the rewards is one.
    """
    has_members = any(isinstance(each, ServiceReward) and each.info.members for each in rewards)
    if config.watch.max_disagreement is not None and not has_members:
        raise BrakeUnusable("watch.max_disagreement needs a reward that is an ensemble: leave it out, or serve one")


def make_watch(config: PPOConfig, gold: Reward | None, done: int) -> Watch:
    """What is looked at beside the training; a resumed run's running means go on."""
    rows = [row for row in read_metrics(config.out) if row["step"] <= done] if done else []
    weights = {reward.name: reward.weight for reward in config.reward_list()}
    source = None if gold is None else _component(config, gold, Workload()).source
    return Watch(config.watch, weights, source, rows)


def _scorer_settings(config: PPOConfig, reward: ServiceReward) -> ScorerSettings:
    services = config.services
    return ScorerSettings(
        reward.info.max_items,
        services.scoring_concurrency,
        patience_of(config),
        services.timeout,
        reward.config.way(),
        drop=not config.strict,
    )
