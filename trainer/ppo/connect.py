"""Finds the policy services of a run and refuses those that do not fit, before anything is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from palate.access import channel_options
from palate.client import PermissionDenied, PolicyClient, PolicyInfo, Unauthenticated
from palate.client.address import Address
from palate.models.rendering import Renderer
from palate.waiting import when_ready
from trainer.config import PPOConfig, ServicesGroup
from trainer.ppo.errors import (
    POLICY_ACCESS,
    AccessRefused,
    PromptMismatch,
    PromptsUnusable,
    UnusableModel,
)
from trainer.ppo.fleet import Fleet
from trainer.ppo.strict import check_alike


@dataclass(frozen=True, slots=True)
class PolicyReplicas:
    """Every replica of the policy service, and what all of them can hold.

    Attributes:
        fleet: One client for each that there is.
        max_tokens: Longest prompt plus completion, here as there.
        shard_prompts: Prompts in one call.
        infos: What each of the first ones has loaded.
        check: Raises where a replica, which may have restarted, no longer fits.
    """

    fleet: Fleet
    max_tokens: int
    shard_prompts: int
    infos: tuple[PolicyInfo, ...]
    check: Callable[[str, PolicyInfo], None]


def connect_policy(config: PPOConfig, renderer: Renderer, stack: ExitStack) -> PolicyReplicas:
    """Asks every replica what it has loaded.

    Raises:
        PromptMismatch: A replica has another tokenizer.
        UnusableModel: A replica is frozen.
        NoReplica: A DNS name has no address.
        NotStrict: Strict mode is asked for, and replicas would give unequal bits.
        AccessRefused: A replica does not let the trainer in.
        AccessError: A file with certificates or the token cannot be used.
        CallError: A replica does not answer.
    """
    services = config.services
    linger = max(services.timeout, services.stage_timeout) if config.overlap.max_staleness else 0.0
    fleet = stack.enter_context(Fleet(services.policy, lambda address: _client(services, address), linger))
    clients = fleet.clients()
    infos = tuple(policy_info(client, services.wait) for client in clients)
    check = _fits(config, renderer, infos[0])
    for client, info in zip(clients, infos, strict=True):
        check(client.target, info)
    limits = [min(info.max_prompts, info.max_completions) for info in infos]
    max_tokens = min(renderer.manifest.max_tokens, *(info.max_tokens for info in infos))
    if config.sampling.max_new_tokens >= max_tokens:
        raise PromptsUnusable(
            f"--sampling.max-new-tokens {config.sampling.max_new_tokens} leaves no room for a prompt: the policy "
            f"reads {max_tokens} tokens in all"
        )
    return PolicyReplicas(fleet, max_tokens, min([config.services.shard_prompts, *limits]), infos, check)


def open_policy(services: ServicesGroup, target: str, stack: ExitStack) -> PolicyClient:
    """A client of a policy service; `stack` closes it.

    Raises:
        AccessError: A file with certificates or the token cannot be used.
    """
    return stack.enter_context(_client(services, Address(target)))


def _client(services: ServicesGroup, address: Address) -> PolicyClient:
    """A client at one address; the certificate there is made out to the name that led to it."""
    access = services.access()
    if address.name and not access.server_name:
        access = replace(access, server_name=address.name)
    return PolicyClient(address.target, timeout=services.timeout, options=channel_options(access))


def policy_info(client: PolicyClient, wait: float) -> PolicyInfo:
    """What the service has loaded; one that still starts is waited for, at most so many seconds.

    Raises:
        AccessRefused: It does not let the trainer in.
        CallError: It does not answer.
    """
    with let_in(client.target, POLICY_ACCESS):
        return when_ready(client.policy_info, wait)


@contextmanager
def let_in(target: str, remedy: str) -> Iterator[None]:
    """Says what to do where the service at `target` refuses the trainer's credentials."""
    try:
        yield
    except (Unauthenticated, PermissionDenied) as error:
        raise AccessRefused(f"{target} does not let the trainer in: {error}. {remedy}") from error


def _fits(config: PPOConfig, renderer: Renderer, first: PolicyInfo) -> Callable[[str, PolicyInfo], None]:
    """Whether a replica can take part, judged by the run's tokenizer and, in strict mode, by the first replica."""

    def check(target: str, info: PolicyInfo) -> None:
        if info.frozen:
            raise UnusableModel(f"{target} is frozen and takes no weights; start the policy service without --frozen")
        if info.tokenizer_digest != renderer.tokenizer_digest:
            raise PromptMismatch(
                f"{target} has another tokenizer than --policy: start the policy service from the same folder"
            )
        if config.lora.rank and "lora" not in info.capabilities:
            raise UnusableModel(
                f"{target} takes no adapters: serve the policy with --engine transformers, or leave --lora.rank out"
            )
        if config.overlap.interrupt and "interrupt" not in info.capabilities:
            raise UnusableModel(f"{target} interrupts no completions: leave --overlap.interrupt out")
        if config.strict:
            check_alike(target, info, first)

    return check
