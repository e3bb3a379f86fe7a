"""Finds what gives the scores of a run, and refuses what does not fit, before anything is computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from palate.access import channel_options
from palate.aggregate import check_members
from palate.client import ModelInfo, RewardClient
from palate.waiting import when_ready
from trainer.config import PPOConfig
from trainer.ppo.connect import let_in
from trainer.ppo.errors import REWARD_ACCESS, RewardModelChanged
from trainer.ppo.patience import patience_of
from trainer.ppo.reward_config import RewardConfig
from trainer.ppo.reward_functions import (
    FunctionScorer,
    FunctionSettings,
    PenaltyScorer,
    format_penalty,
    length_penalty,
)
from trainer.ppo.strict import check_reward


@dataclass(frozen=True, slots=True)
class ServiceReward:
    """A reward that a service gives.

    Attributes:
        config: What is asked for, and how it counts.
        client: Pinned to the revision.
        info: What the service has loaded.
    """

    config: RewardConfig
    client: RewardClient
    info: ModelInfo

    @property
    def revision(self) -> str:
        """Of the reward model."""
        return self.info.provenance.revision


@dataclass(frozen=True, slots=True)
class LocalReward:
    """A reward that is computed here: what is asked for, and what computes it."""

    config: RewardConfig
    source: FunctionScorer | PenaltyScorer

    @property
    def revision(self) -> str:
        """Of the function."""
        return self.source.revision


Reward = ServiceReward | LocalReward


def revisions_of(rewards: Sequence[Reward]) -> dict[str, str]:
    """Name → revision of every reward, what a run is pinned to."""
    return {reward.config.name: reward.revision for reward in rewards}


def connect_rewards(config: PPOConfig, stack: ExitStack, pinned: Mapping[str, str] | None) -> tuple[Reward, ...]:
    """Every reward of a run, each bound to one revision: the run's, or where there is none yet, what is there now.

    Args:
        config: Of the run.
        stack: Closes clients, and ends processes of functions.
        pinned: The revisions a resumed run is bound to, by name.

    Raises:
        RewardModelChanged: Another one is there, and the configuration does not accept that.
        RewardFunctionUnusable: A local function is not found.
        NotStrict: Strict mode is asked for, and a service cannot keep it.
        AccessRefused: A service does not let the trainer in.
        AccessError: A file with certificates or the token cannot be used.
        InvalidInput: Members are to be aggregated, and the model has none.
    """

    def check(each: RewardConfig, where: str, found: str) -> None:
        before = None if pinned is None or config.accept_new_reward else pinned.get(each.name)
        if before not in (None, found):
            raise RewardModelChanged(
                f"the run's reward {each.name} is pinned to revision {before}; {where} has {found}. Put the former one "
                "back, or pass --accept-new-reward"
            )

    return tuple(
        _service(config, each, check, stack) if each.target else _local(config, each, check, stack)
        for each in config.reward_list()
    )


def connect_gold(config: PPOConfig, stack: ExitStack) -> Reward | None:
    """What judges rollouts beside the rewards; None where nothing does. Its revision is that of this start of the run.

    Raises:
        CallError: The service is away, does not know its model, or refuses the trainer.
        RewardFunctionUnusable: The function is not there.
    """
    gold = config.watch.gold_reward()
    if gold is None:
        return None

    def check(each: RewardConfig, where: str, found: str) -> None:
        """Whatever it is, nothing is learnt from it."""

    return _service(config, gold, check, stack) if gold.target else _local(config, gold, check, stack)


_Check = Callable[[RewardConfig, str, str], None]


def _service(config: PPOConfig, each: RewardConfig, check: _Check, stack: ExitStack) -> ServiceReward:
    with _client(config, each, "") as asked, let_in(each.target, REWARD_ACCESS):
        info = when_ready(asked.model_info, config.services.wait)
    check_members(each.way(), info)
    if config.strict:
        check_reward(each.target, info)
    check(each, each.target, info.provenance.revision)
    return ServiceReward(each, stack.enter_context(_client(config, each, info.provenance.revision)), info)


def _local(config: PPOConfig, each: RewardConfig, check: _Check, stack: ExitStack) -> LocalReward:
    source: FunctionScorer | PenaltyScorer
    if each.function:
        seconds = each.timeout or config.services.timeout
        settings = FunctionSettings(seconds, patience_of(config), drop=not config.strict)
        source = FunctionScorer(each.function, settings)
        stack.callback(source.close)
    elif each.pattern is not None:
        source = format_penalty(each.pattern)
    else:
        assert each.max_tokens is not None  # one of the four is given
        source = length_penalty(each.max_tokens)
    check(each, each.function or each.name, source.revision)
    return LocalReward(each, source)


def _client(config: PPOConfig, each: RewardConfig, revision: str) -> RewardClient:
    access = config.services.access()
    access = replace(
        access, token_file=each.token_file or access.token_file, server_name=each.server_name or access.server_name
    )
    return RewardClient(
        each.target,
        timeout=config.services.timeout,
        model=each.model,
        revision=revision,
        options=channel_options(access),
    )
