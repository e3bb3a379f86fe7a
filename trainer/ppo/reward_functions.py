"""Rewards that are computed here: a user's function, a length penalty, a format penalty."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trainer.ppo.errors import RewardFunctionBroken, RewardFunctionUnusable, ScoresFailed
from trainer.ppo.function_process import FunctionProcess, Late, NoAnswer, NoFunction, Raised, Value
from trainer.ppo.patience import Patience
from trainer.types import DropCause, DroppedRollout, Rollout, ScoredRollout

_BACKOFF_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class PenaltyScorer:
    """Scores rollouts by a rule.

    Attributes:
        rule: A number for a rollout.
        revision: What the rule is known by.
    """

    rule: Callable[[Rollout], float]
    revision: str

    def score(self, rollouts: Sequence[Rollout]) -> list[ScoredRollout | DroppedRollout]:
        """A score for each rollout in order."""
        return [ScoredRollout(rollout, self.rule(rollout), self.revision) for rollout in rollouts]

    def close(self) -> None:
        """There is nothing to end."""


@dataclass(frozen=True, slots=True)
class FunctionSettings:
    """How a function is called.

    Attributes:
        seconds: Deadline of a call.
        patience: How often a function that is late, or ends its process, is called.
        drop: What gets no score by then falls out; else the run stops (strict mode).
    """

    seconds: float
    patience: Patience
    drop: bool = True


class FunctionScorer:
    """Scores rollouts by a user's `module:function`; what it gives no finite number for has no score.

    It is called with the keywords prompts and completions, lists of texts, and gives a number, or None, for each.

    Args:
        name: The function.
        settings: How it is called.

    Attributes:
        revision: SHA-256 of its module's file.

    Raises:
        RewardFunctionUnusable: There is none.
    """

    def __init__(self, name: str, settings: FunctionSettings) -> None:
        self._name = name
        self._settings = settings
        try:
            self._process = FunctionProcess(name, settings.seconds)
        except NoFunction as error:
            raise RewardFunctionUnusable(f"{name}: {error}") from error
        self.revision = self._process.digest

    def score(self, rollouts: Sequence[Rollout]) -> list[ScoredRollout | DroppedRollout]:
        """A score, or why there is none, for each rollout in order.

        Raises:
            RewardFunctionBroken: There is not one value for each.
            RewardFunctionUnusable: It gave no answer, and is not there any more.
            ScoresFailed: It gave no answer at any time, and nothing may be dropped.
        """
        try:
            values = self._patiently([each.prompt for each in rollouts], [each.completion for each in rollouts])
        except NoFunction as error:
            raise RewardFunctionUnusable(f"{self._name}: {error}") from error
        except NoAnswer as error:
            return self._given_up(rollouts, error)
        except Raised as error:
            return [DroppedRollout(rollout, DropCause.FAILED, str(error)) for rollout in rollouts]
        if len(values) != len(rollouts):
            raise RewardFunctionBroken(
                f"a reward function gave {len(values)} values for {len(rollouts)} completions ({self.revision}); it is "
                "to give one for each, and None where there is none"
            )
        return [self._outcome(rollout, value) for rollout, value in zip(rollouts, values, strict=True)]

    def close(self) -> None:
        """Ends its process, also in the middle of a call."""
        self._process.close()

    def _patiently(self, prompts: Sequence[str], completions: Sequence[str]) -> list[Value]:
        pauses = self._settings.patience.pauses(_BACKOFF_SECONDS)
        while True:
            try:
                return self._process.call(prompts, completions)
            except NoAnswer:
                if (pause := next(pauses, None)) is None:
                    raise
                time.sleep(pause)

    def _given_up(self, rollouts: Sequence[Rollout], why: NoAnswer) -> list[ScoredRollout | DroppedRollout]:
        message = f"{why} ({self._settings.patience})"
        cause = DropCause.EXPIRED if isinstance(why, Late) else DropCause.FAILED
        if self._settings.drop:
            return [DroppedRollout(rollout, cause, message) for rollout in rollouts]
        raise ScoresFailed(
            f"{self._name}: {message}, and --strict lets no rollout fall out. Mend the function, or raise its "
            "timeout in rewards, then --resume"
        )

    def _outcome(self, rollout: Rollout, value: Value) -> ScoredRollout | DroppedRollout:
        if isinstance(value, str):
            return DroppedRollout(rollout, DropCause.FAILED, value)
        return ScoredRollout(rollout, value, self.revision)


def length_penalty(max_tokens: int) -> PenaltyScorer:
    """−1 for every token of a completion above `max_tokens`, the end-of-sequence token included."""
    return PenaltyScorer(
        lambda rollout: -float(max(0, len(rollout.completion_ids) - max_tokens)), f"max_tokens {max_tokens}"
    )


def format_penalty(pattern: str) -> PenaltyScorer:
    """−1 where `pattern` is not found in the completion, else 0."""
    expression = re.compile(pattern)
    return PenaltyScorer(lambda rollout: 0.0 if expression.search(rollout.completion) else -1.0, f"pattern {pattern}")
