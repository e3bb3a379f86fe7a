"""What a policy says to prompts it was not trained on, and what a reward service makes of it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from palate.client import GeneratedCompletion, PolicyClient, RewardClient, SamplingParams

CHUNK = 64
"""Prompts or items in one request; within every server's default limits."""

_SEED_STRIDE = 1_000_003


def sample(
    policy: PolicyClient, prompts: Sequence[str], sampling: SamplingParams, seed: int
) -> list[GeneratedCompletion]:
    """One completion of each prompt, in their order; each prompt has a seed of its own made of `seed` and its place."""
    completions: list[GeneratedCompletion] = []
    for begin in range(0, len(prompts), CHUNK):
        part = prompts[begin : begin + CHUNK]
        seeds = [seed * _SEED_STRIDE + begin + offset for offset in range(len(part))]
        finished = policy.generate(part, sampling=sampling, seeds=seeds)
        completions.extend(sorted(finished, key=lambda completion: completion.prompt_index))
    return completions


def scores_of(reward: RewardClient, prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
    """Raw scores, in the order of the completions.

    Raises:
        ItemsFailed: An item has no score.
    """
    found: list[float] = []
    for begin in range(0, len(prompts), CHUNK):
        end = begin + CHUNK
        found.extend(reward.score(prompts[begin:end], completions[begin:end]).scores())
    return found


def mean_sequence_kl(completions: Sequence[GeneratedCompletion], ref: PolicyClient, temperature: float) -> float:
    """KL to the reference policy: mean over completions of the log-ratio summed over tokens, in nats (k1)."""
    totals: list[float] = []
    tokenizer_digest = ref.policy_info().tokenizer_digest
    for begin in range(0, len(completions), CHUNK):
        part = completions[begin : begin + CHUNK]
        sequences = [(completion.prompt_token_ids, completion.token_ids) for completion in part]
        reply = ref.compute_logprobs(sequences, tokenizer_digest=tokenizer_digest, temperature=temperature)
        totals.extend(sum(c.logprobs) - sum(row) for c, row in zip(part, reply.logprobs, strict=True))
    return statistics.fmean(totals)
