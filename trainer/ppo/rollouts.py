"""Samples completions through the policy service, on exactly the weights that were published."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from palate.client.errors import CallError, DeadlineExceeded, FailedPrecondition, Overloaded, Unavailable
from palate.client.policy import PolicyClient
from palate.client.types import GeneratedCompletion, PolicyVersion, SamplingParams
from trainer.ppo.errors import PromptMismatch, RolloutsFailed
from trainer.types import PromptDraw, Rollout

_BACKOFF_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class RolloutSettings:
    """How rollouts are asked for.

    Attributes:
        sampling: How tokens are drawn.
        shard_prompts: Prompts in one call; does not depend on the number of replicas, so results do not either.
        attempts: How often a shard is asked for, each time at the next replica.
        timeout: Seconds for one call.
    """

    sampling: SamplingParams
    shard_prompts: int
    attempts: int
    timeout: float


class RolloutCollector:
    """Asks the replicas of the policy service for completions, a shard at a time, all replicas at once."""

    def __init__(self, replicas: Sequence[PolicyClient], settings: RolloutSettings) -> None:
        self._replicas = tuple(replicas)
        self._settings = settings
        self._pool = ThreadPoolExecutor(len(self._replicas), thread_name_prefix="rollouts")

    def collect(self, draws: Sequence[PromptDraw], version: PolicyVersion) -> list[Rollout]:
        """One rollout per draw, in their order.

        Raises:
            PromptMismatch: The service reads a prompt as other tokens than the trainer.
            RolloutsFailed: No replica delivers.
        """
        size = self._settings.shard_prompts
        shards = [draws[start : start + size] for start in range(0, len(draws), size)]
        futures = [self._pool.submit(self._shard, number, shard, version) for number, shard in enumerate(shards)]
        return list(itertools.chain.from_iterable(future.result() for future in futures))

    def close(self) -> None:
        """Waits for calls that run and ends the workers; the clients stay open."""
        self._pool.shutdown(cancel_futures=True)

    def _shard(self, number: int, draws: Sequence[PromptDraw], version: PolicyVersion) -> list[Rollout]:
        done: dict[int, Rollout] = {}
        for attempt in range(self._settings.attempts):
            replica = self._replicas[(number + attempt) % len(self._replicas)]
            missing = [index for index in range(len(draws)) if index not in done]
            try:
                self._generate(replica, [(index, draws[index]) for index in missing], version, done)
                return [done[index] for index in range(len(draws))]
            except (Unavailable, Overloaded, DeadlineExceeded, FailedPrecondition) as error:
                last = error
                if attempt + 1 < self._settings.attempts:
                    time.sleep(error.retry_after or _BACKOFF_SECONDS * 2**attempt)
        raise RolloutsFailed(_remedy(last, self._settings)) from last

    def _generate(
        self,
        replica: PolicyClient,
        wanted: Sequence[tuple[int, PromptDraw]],
        version: PolicyVersion,
        done: dict[int, Rollout],
    ) -> None:
        """Adds completions to `done` as they come, so that a broken call loses only what had not finished."""
        stream = replica.generate(
            [draw.text for _, draw in wanted],
            sampling=self._settings.sampling,
            seeds=[draw.seed for _, draw in wanted],
            required_policy_version=version,
            timeout=self._settings.timeout,
        )
        for completion in stream:
            index, draw = wanted[completion.prompt_index]
            done[index] = rollout_of(draw, completion, version)
        if missing := [index for index, _ in wanted if index not in done]:
            raise RolloutsFailed(f"{replica.target} ended its answer without {len(missing)} of {len(wanted)} rollouts")


def rollout_of(draw: PromptDraw, completion: GeneratedCompletion, version: PolicyVersion) -> Rollout:
    """Checks what the service sent for `draw`.

    Raises:
        PromptMismatch: It read other tokens than the trainer.
        RolloutsFailed: Some token came from other weights than `version`, or logprobs are missing.
    """
    if completion.prompt_token_ids != draw.prompt_ids:
        raise PromptMismatch(_difference(draw.prompt_ids, completion.prompt_token_ids))
    served = {span.version for span in completion.policy_versions}
    if served != {version}:
        raise RolloutsFailed(f"a completion was drawn from {served}, not from the published {version}")
    if not completion.token_ids or len(completion.logprobs) != len(completion.token_ids):
        raise RolloutsFailed(
            f"a completion has {len(completion.token_ids)} tokens and {len(completion.logprobs)} logprobs"
        )
    return Rollout(
        draw.text,
        completion.text,
        draw.prompt_ids,
        completion.token_ids,
        completion.logprobs,
        completion.finish_reason,
        version,
        draw.seed,
    )


def _difference(expected: Sequence[int], served: Sequence[int]) -> str:
    pairs = itertools.zip_longest(expected, served)
    position = next(index for index, (mine, theirs) in enumerate(pairs) if mine != theirs)
    return (
        f"trainer and policy service read the same prompt as different tokens: {len(expected)} against {len(served)}, "
        f"different from position {position} on. Chat template, BOS rule or tokenizer of the two model folders differ: "
        "start the service from the folder given as --policy (compare palate.json, chat_template.jinja, tokenizer.json)"
    )


def _remedy(error: CallError, settings: RolloutSettings) -> str:
    tried = f"no rollouts after {settings.attempts} attempts: {error}."
    if isinstance(error, FailedPrecondition):
        return f"{tried} A replica serves other weights: list every replica in --services.policy"
    if isinstance(error, DeadlineExceeded):
        return f"{tried} Raise --services.timeout or lower --services.shard-prompts"
    return f"{tried} Is the policy service running at the addresses of --services.policy?"
