"""Samples completions through the policy service, on the published weights, or on those of some steps before."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from palate.client.errors import (
    CallError,
    DeadlineExceeded,
    FailedPrecondition,
    InternalError,
    Overloaded,
    PalateError,
    Unavailable,
)
from palate.client.policy import PolicyClient
from palate.client.types import GeneratedCompletion, PolicyVersion, SamplingParams
from trainer.ppo import points
from trainer.ppo.errors import OtherWeights, PromptMismatch, RolloutsFailed
from trainer.ppo.idle import BusyMeter
from trainer.ppo.patience import Patience
from trainer.ppo.replica import TOO_LARGE, Replica
from trainer.types import DropCause, DroppedDraw, PromptDraw, Rollout

_BACKOFF_SECONDS = 0.2

_DRAW_CAUSES: dict[type[CallError], DropCause] = {
    InternalError: DropCause.DRAW_FAILED,
    DeadlineExceeded: DropCause.DRAW_EXPIRED,
}
"""Ends of a call that say something of the completions it left out: all others were sent."""

_MAY_PASS = (Unavailable, Overloaded, FailedPrecondition, InternalError, DeadlineExceeded)


@dataclass(frozen=True, slots=True)
class RolloutSettings:
    """How rollouts are asked for.

    Attributes:
        sampling: How tokens are drawn.
        shard_prompts: Prompts in one call; does not depend on the number of replicas, so results do not either.
        patience: How long a shard is asked for, each time at the next replica.
        timeout: Seconds for one call.
        strict: Draw the same bits always: a shard is drawn beside no other call, and from its beginning where it broke
            off, since rows that are drawn beside others may differ in their last bits. None may fall out.
    """

    sampling: SamplingParams
    shard_prompts: int
    patience: Patience
    timeout: float
    strict: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which weights may draw.

    Attributes:
        version: What was published last, when it was asked for.
        oldest: Weights of the same start of the run will do as well from this step on, also those published since; None
            = `version` alone.
    """

    version: PolicyVersion
    oldest: int | None = None

    @property
    def required(self) -> PolicyVersion | None:
        """What the policy service is to insist on."""
        return self.version if self.oldest is None else None

    def accepts(self, version: PolicyVersion) -> bool:
        """Whether rollouts of `version` will do."""
        if self.oldest is None:
            return version == self.version
        same_start = (version.run_id, version.incarnation) == (self.version.run_id, self.version.incarnation)
        return same_start and version.step >= self.oldest


class RolloutCollector:
    """Asks the replicas of the policy service for completions, a shard at a time, all replicas at once.

    Args:
        replicas: Gives those that there are now.
        catch_up: Makes a replica serve what was published last: one that has restarted serves its first weights.
        settings: How rollouts are asked for.
        meter: Of the policy service.
    """

    def __init__(
        self,
        replicas: Callable[[], Sequence[Replica]],
        catch_up: Callable[[Replica], None],
        settings: RolloutSettings,
        meter: BusyMeter | None = None,
    ) -> None:
        self._replicas = replicas
        self._catch_up = catch_up
        self._settings = settings
        self._meter = meter or BusyMeter()

    def collect(
        self, draws: Sequence[PromptDraw], version: PolicyVersion, oldest: int | None = None
    ) -> list[Rollout | DroppedDraw]:
        """A rollout, or why there is none, for each draw in order.

        Args:
            draws: Prompts and seeds.
            version: What was published last.
            oldest: Where other weights of the run will do as well: the first step whose weights do.

        Raises:
            PromptMismatch: The service reads a prompt as other tokens than the trainer.
            RolloutsFailed: No replica delivers; or in strict mode, not all that was asked for.
        """
        points.reach("rollouts")
        wanted = Wanted(version, oldest)
        size = self._settings.shard_prompts
        shards = [draws[start : start + size] for start in range(0, len(draws), size)]
        with ThreadPoolExecutor(len(self._replicas()), thread_name_prefix="rollouts") as pool:
            futures = [pool.submit(self._shard, number, shard, wanted) for number, shard in enumerate(shards)]
            return list(itertools.chain.from_iterable(future.result() for future in futures))

    def _shard(self, number: int, draws: Sequence[PromptDraw], wanted: Wanted) -> list[Rollout | DroppedDraw]:
        done: dict[int, Rollout] = {}
        failure: CallError | None = None
        pauses = self._settings.patience.pauses(_BACKOFF_SECONDS)
        for place in itertools.count(number):
            replicas = self._replicas()
            replica = replicas[place % len(replicas)]
            if self._settings.strict:
                done.clear()
            missing = [(index, draw) for index, draw in enumerate(draws) if index not in done]
            try:
                self._generate(replica, missing, wanted, done)
                break
            except _MAY_PASS as error:
                failure = error if type(error) in _DRAW_CAUSES else failure
                pause = next(pauses, None)
                if pause is None:
                    return self._given_up(draws, done, failure or error)
                time.sleep(error.retry_after or pause)
            except TOO_LARGE as error:  # not split: which rows are drawn together is part of the result
                raise RolloutsFailed(_too_large(error, self._settings)) from error
        return [done[index] for index in range(len(draws))]

    def _given_up(
        self, draws: Sequence[PromptDraw], done: dict[int, Rollout], error: CallError
    ) -> list[Rollout | DroppedDraw]:
        """What a shard comes to where patience ends: in the place of what is missing, why.

        Raises:
            RolloutsFailed: The service is away, which says nothing of single completions; or none may fall out.
        """
        cause = _DRAW_CAUSES.get(type(error))
        if cause is None or self._settings.strict:
            raise RolloutsFailed(_remedy(error, self._settings)) from error
        message = f"{error} ({self._settings.patience})"
        return [done.get(index) or DroppedDraw(draw, cause, message) for index, draw in enumerate(draws)]

    def _generate(
        self,
        replica: Replica,
        missing: Sequence[tuple[int, PromptDraw]],
        wanted: Wanted,
        done: dict[int, Rollout],
    ) -> None:
        """Adds completions to `done` as they come, so that a broken call loses only what had not finished."""
        try:
            self._draw(replica.client, missing, wanted, done)
        except (FailedPrecondition, OtherWeights) as error:
            # Only a replica that was not told what to insist on draws from other weights before it is found out.
            if isinstance(error, FailedPrecondition) and not replica.forgot():
                raise
            self._catch_up(replica)
            left = [(index, draw) for index, draw in missing if index not in done]
            self._draw(replica.client, left, wanted, done)

    def _draw(
        self,
        client: PolicyClient,
        missing: Sequence[tuple[int, PromptDraw]],
        wanted: Wanted,
        done: dict[int, Rollout],
    ) -> None:
        with self._meter.busy():
            stream = client.generate(
                [draw.text for _, draw in missing],
                sampling=self._settings.sampling,
                seeds=[draw.seed for _, draw in missing],
                required_policy_version=wanted.required,
                strict=self._settings.strict,
                timeout=self._settings.timeout,
            )
            for completion in stream:
                index, draw = missing[completion.prompt_index]
                done[index] = rollout_of(draw, completion, wanted)
                points.reach("rollout")
        if lacking := [index for index, _ in missing if index not in done]:
            raise RolloutsFailed(f"{client.target} ended its answer without {len(lacking)} of {len(missing)} rollouts")


def rollout_of(draw: PromptDraw, completion: GeneratedCompletion, wanted: Wanted) -> Rollout:
    """Checks what the service sent for `draw`.

    Raises:
        PromptMismatch: It read other tokens than the trainer.
        OtherWeights: Some token came from weights that are not wanted.
        RolloutsFailed: Logprobs are missing, or it is not said of each token which weights drew it.
    """
    if completion.prompt_token_ids != draw.prompt_ids:
        raise PromptMismatch(_difference(draw.prompt_ids, completion.prompt_token_ids))
    served = [span.version for span in completion.policy_versions]
    if not served or not all(map(wanted.accepts, served)):
        raise OtherWeights(f"a completion was drawn from {served}, not from the published {wanted.version}")
    if not completion.token_ids or len(completion.logprobs) != len(completion.token_ids):
        raise RolloutsFailed(
            f"a completion has {len(completion.token_ids)} tokens and {len(completion.logprobs)} logprobs"
        )
    starts = [span.first_token for span in completion.policy_versions]
    if starts[0] != 0 or sorted(set(starts)) != starts or starts[-1] >= len(completion.token_ids):
        raise RolloutsFailed(
            f"spans of weights begin at tokens {starts} of a completion of {len(completion.token_ids)}"
        )
    return Rollout(
        draw.text,
        completion.text,
        draw.prompt_ids,
        completion.token_ids,
        completion.logprobs,
        completion.finish_reason,
        completion.policy_versions,
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


def _too_large(error: PalateError, settings: RolloutSettings) -> str:
    return (
        f"a call for {settings.shard_prompts} rollouts is too large: {error}. In the trainer, lower "
        "--services.shard-prompts; to keep it, raise --max-message-bytes of the policy service"
    )


def _remedy(error: CallError, settings: RolloutSettings) -> str:
    tried = f"no rollouts after {settings.patience}: {error}."
    if isinstance(error, FailedPrecondition):
        return f"{tried} A replica serves other weights: list every replica in --services.policy"
    if isinstance(error, DeadlineExceeded):
        return f"{tried} Raise --services.timeout or lower --services.shard-prompts"
    if isinstance(error, InternalError):
        return (
            f"{tried} --strict lets no rollout fall out: mend the policy service, whose log has the cause, then "
            "--resume; --services.patience says how long it is waited for"
        )
    return f"{tried} Is the policy service running at the addresses of --services.policy?"
