"""Has completions scored by a reward service. What gets no score is dropped by name, never scored 0."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from palate.client.errors import (
    CallError,
    DeadlineExceeded,
    FailedPrecondition,
    Overloaded,
    PalateError,
    Unavailable,
)
from palate.client.reward import RewardClient
from palate.client.types import Aggregate, AggregateLike, Failed, Scored
from trainer.ppo.errors import RewardModelChanged, ScoresFailed
from trainer.ppo.idle import BusyMeter
from trainer.ppo.patience import Patience
from trainer.ppo.replica import TOO_LARGE
from trainer.types import DropCause, DroppedRollout, Rollout, ScoredRollout

_BACKOFF_SECONDS = 0.2

_CALL_CAUSES: dict[type[CallError], DropCause] = {
    Unavailable: DropCause.UNAVAILABLE,
    Overloaded: DropCause.OVERLOADED,
    DeadlineExceeded: DropCause.EXPIRED,
}
"""Failures of a whole call that may pass, and what they are for each of its items."""


@dataclass(frozen=True, slots=True)
class ScorerSettings:
    """How scores are asked for.

    Attributes:
        items_per_call: At most the server's `max_items`.
        concurrency: Calls at a time.
        patience: How long an item is tried.
        timeout: Seconds for one call.
        aggregate: How an ensemble's members become one score.
        drop: What gets no score by then falls out; else the run stops (strict mode).
    """

    items_per_call: int
    concurrency: int
    patience: Patience
    timeout: float
    aggregate: AggregateLike = Aggregate.MODEL_DEFAULT
    drop: bool = True


@dataclass(frozen=True, slots=True)
class _Retry:
    """An item without a score so far."""

    cause: DropCause
    message: str
    after: float | None


class ServiceScorer:
    """Scores rollouts as text, so that policy and reward model may have different tokenizers.

    Args:
        client: Of the reward service, pinned to the run's revision.
        settings: How scores are asked for.
        meter: Of the reward services.
    """

    def __init__(self, client: RewardClient, settings: ScorerSettings, meter: BusyMeter | None = None) -> None:
        self._client = client
        self._settings = settings
        self._meter = meter or BusyMeter()
        self._pool = ThreadPoolExecutor(settings.concurrency, thread_name_prefix="scoring")

    def score(self, rollouts: Sequence[Rollout]) -> list[ScoredRollout | DroppedRollout]:
        """A score, or why there is none, for each rollout in order.

        Raises:
            RewardModelChanged: The service has another revision than the pinned one.
            ScoresFailed: A rollout that may not be dropped got no score.
            CallError: The service refuses the calls themselves.
        """
        outcomes: dict[int, ScoredRollout | DroppedRollout] = {}
        pauses = self._settings.patience.pauses(_BACKOFF_SECONDS)
        retries = self._round(rollouts, range(len(rollouts)), outcomes)
        while retries and (pause := next(pauses, None)) is not None:
            time.sleep(max([pause, *(retry.after or 0 for retry in retries.values())]))
            retries = self._round(rollouts, list(retries), outcomes)
        for index, retry in retries.items():
            outcomes[index] = self._given_up(rollouts[index], retry)
        return [outcomes[index] for index in range(len(rollouts))]

    def close(self) -> None:
        """Waits for calls that run and ends the workers; the client stays open."""
        self._pool.shutdown(cancel_futures=True)

    def _round(
        self, rollouts: Sequence[Rollout], pending: Sequence[int], outcomes: dict[int, ScoredRollout | DroppedRollout]
    ) -> dict[int, _Retry]:
        """Asks for all `pending` once; fills `outcomes`; returns what is worth another try."""
        size = self._settings.items_per_call
        chunks = [pending[start : start + size] for start in range(0, len(pending), size)]
        answers = self._pool.map(lambda chunk: self._call([rollouts[index] for index in chunk]), chunks)
        retries: dict[int, _Retry] = {}
        for chunk, answer in zip(chunks, answers, strict=True):
            for index, outcome in zip(chunk, answer, strict=True):
                if isinstance(outcome, _Retry):
                    retries[index] = outcome
                else:
                    outcomes[index] = outcome
        return retries

    def _given_up(self, rollout: Rollout, retry: _Retry) -> DroppedRollout:
        message = f"{retry.message} ({self._settings.patience})"
        if self._settings.drop:
            return DroppedRollout(rollout, retry.cause, message)
        raise ScoresFailed(
            f"a rollout got no score, and --strict lets none fall out: {retry.cause}: {message}. Mend the reward "
            "service, then --resume; --services.patience says how long it is waited for"
        )

    def _call(self, rollouts: Sequence[Rollout]) -> list[ScoredRollout | DroppedRollout | _Retry]:
        prompts, completions = [r.prompt for r in rollouts], [r.completion for r in rollouts]
        try:
            with self._meter.busy():
                reply = self._client.score(
                    prompts, completions, timeout=self._settings.timeout, aggregate=self._settings.aggregate
                )
        except tuple(_CALL_CAUSES) as error:
            return [_Retry(_CALL_CAUSES[type(error)], str(error), error.retry_after)] * len(rollouts)
        except TOO_LARGE as error:
            return self._halved(rollouts, error)
        except FailedPrecondition as error:
            raise RewardModelChanged(
                f"the reward service no longer has the revision this run is pinned to: {error}. Serve that model "
                "again, or continue with --resume --accept-new-reward"
            ) from error
        revision = reply.provenance.revision
        return [_outcome(r, result, revision) for r, result in zip(rollouts, reply.results, strict=True)]

    def _halved(self, rollouts: Sequence[Rollout], error: PalateError) -> list[ScoredRollout | DroppedRollout | _Retry]:
        """As many calls as it takes; a rollout that is over the limit by itself gets no score."""
        if len(rollouts) == 1:
            return [DroppedRollout(rollouts[0], DropCause.TOO_LONG, str(error))]
        middle = len(rollouts) // 2
        return self._call(rollouts[:middle]) + self._call(rollouts[middle:])


def _outcome(rollout: Rollout, result: Scored | Failed, revision: str) -> ScoredRollout | DroppedRollout | _Retry:
    if isinstance(result, Scored):
        return ScoredRollout(rollout, result.score, revision, std=result.std)
    cause = DropCause(result.code.value)
    if result.retryable:
        return _Retry(cause, result.message, result.retry_after)
    return DroppedRollout(rollout, cause, result.message)
