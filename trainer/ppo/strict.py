"""Strict mode: what the last bits of a run depend on, and what must hold so that a resumed run gives the same ones."""

from __future__ import annotations

import logging
import platform
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib.metadata import version

import torch

from palate.client import ModelInfo, PolicyInfo
from trainer.config import PPOConfig
from trainer.ppo.errors import NotStrict

_LOG = logging.getLogger(__name__)
_STRICT = "strict"
"""The capability of a service that gives the same bits in any company."""


def bits_of(
    config: PPOConfig,
    ranks: int,
    shard_prompts: int,
    policy: Sequence[PolicyInfo],
    ref: PolicyInfo | None,
    rewards: Mapping[str, ModelInfo],
) -> dict[str, str]:
    """What a run's numbers can depend on in their last bits, beside its settings: by name, in words.

    Args:
        config: Of the run.
        ranks: Processes that learn together.
        shard_prompts: Prompts in one generation call.
        policy: What each replica has loaded.
        ref: What the reference service has loaded; None = the trainer computes it.
        rewards: What each reward service has loaded, by the reward's name.
    """
    together = {} if ranks == 1 else {"ranks": f"{ranks} {config.distributed}"}
    adapters = {"peft": version("peft")} if config.lora.rank else {}
    return (
        together
        | adapters
        | {
            "threads": str(config.threads),
            "ppo.microbatch_size": str(config.ppo.microbatch_size),
            "prompts in a generation call": str(shard_prompts),
            "policy service": "; ".join(sorted({engine_bits(info) for info in policy})),
            "reference policy": "local" if ref is None else engine_bits(ref),
            **{f"reward {name}": f"{i.provenance.engine} {i.provenance.dtype}" for name, i in rewards.items()},
            "torch": torch.__version__,
            "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        }
    )


def engine_bits(info: PolicyInfo) -> str:
    """What the last bits of a policy service's answers depend on beside weights and request."""
    return (
        f"{info.engine} {info.dtype}, {info.threads} threads, batches of {info.max_batch_rows} rows and "
        f"{info.max_batch_tokens} tokens"
    )


def check_reward(target: str, info: ModelInfo) -> None:
    """Asks whether the reward service can keep strict mode.

    Raises:
        NotStrict: It does not promise the same bits in every batch.
    """
    if _STRICT not in info.capabilities:
        raise NotStrict(
            f"--strict needs scores that are the same bits in every batch, and the reward service at {target} does not "
            "promise that: start it with --strict"
        )


def check_alike(target: str, info: PolicyInfo, first: PolicyInfo) -> None:
    """Asks whether a replica gives the same bits always, and as the first one.

    Raises:
        NotStrict: It does not promise that, or computes otherwise.
    """
    if _STRICT not in info.capabilities:
        raise NotStrict(
            f"--strict needs rollouts that are the same bits in any company, and the policy service at "
            f"{target} (engine {info.engine}) does not promise that: serve the policy with --engine transformers"
        )
    if engine_bits(info) != engine_bits(first):
        raise NotStrict(
            f"--strict needs replicas that compute alike: {target} has {engine_bits(info)}; the run's first one has "
            f"{engine_bits(first)}. Start all with the same --dtype, --threads, --max-batch-rows and "
            "--max-batch-tokens"
        )


def check_resumed(before: Mapping[str, str], now: Mapping[str, str], *, strict: bool) -> None:
    """Compares what a resumed run finds with what it began with; outside of strict mode it is only told.

    Raises:
        NotStrict: Something is different, and the run promises the same bits.
    """
    told = changed(before, now)
    if told and strict:
        raise NotStrict(f"--strict promises the same bits, and this is not as before: {told}. Put it back")
    if told:
        _LOG.warning("results may differ in the last bits from those of an undisturbed run: %s", told)


def changed(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What a resumed run finds changed, in words; empty where nothing is."""
    names = [name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)]
    return "; ".join(f"{name} (was {before.get(name)!r}, is {now.get(name)!r})" for name in names)


def compute_deterministically(stack: ExitStack) -> None:
    """Makes torch refuse what could give other bits in another run, until `stack` closes."""
    stack.callback(torch.use_deterministic_algorithms, torch.are_deterministic_algorithms_enabled())
    torch.use_deterministic_algorithms(True)
