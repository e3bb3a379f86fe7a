"""Rewards that are computed here: a user's function, a length penalty, a format penalty."""

from __future__ import annotations

import hashlib
import importlib
import math
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.ppo.errors import RewardFunctionBroken, RewardFunctionUnusable
from trainer.types import DropCause, DroppedRollout, Rollout, ScoredRollout

Function = Callable[[Sequence[Rollout]], Iterable[Any]]


@dataclass(frozen=True, slots=True)
class FunctionScorer:
    """Scores rollouts by a function; what it gives no finite number for has no score.

    Attributes:
        function: One number, or None, for each rollout.
        revision: What the function is known by.
    """

    function: Function
    revision: str

    def score(self, rollouts: Sequence[Rollout]) -> list[ScoredRollout | DroppedRollout]:
        """A score, or why there is none, for each rollout in order.

        Raises:
            RewardFunctionBroken: There is not one value for each.
        """
        try:
            values = list(self.function(rollouts))
        except Exception as error:  # a user's code: whatever it raises is why there is no score
            return [DroppedRollout(rollout, DropCause.FAILED, _raised(error)) for rollout in rollouts]
        if len(values) != len(rollouts):
            raise RewardFunctionBroken(
                f"a reward function gave {len(values)} values for {len(rollouts)} completions ({self.revision}); it is "
                "to give one for each, and None where there is none"
            )
        return [self._outcome(rollout, value) for rollout, value in zip(rollouts, values, strict=True)]

    def close(self) -> None:
        """There is nothing to end."""

    def _outcome(self, rollout: Rollout, value: Any) -> ScoredRollout | DroppedRollout:
        try:
            score = float(value)
        except (TypeError, ValueError):
            return DroppedRollout(rollout, DropCause.FAILED, f"the function gave {type(value).__name__}, no number")
        if not math.isfinite(score):
            return DroppedRollout(rollout, DropCause.FAILED, f"the function gave {score}")
        return ScoredRollout(rollout, score, self.revision)


def local_function(name: str) -> FunctionScorer:
    """The function `module:function`, known by the SHA-256 of its module's file.

    It is called with the keywords prompts and completions, lists of texts.

    Raises:
        RewardFunctionUnusable: There is none.
    """
    module_name, _, attribute = name.partition(":")
    module = _imported(module_name, name)
    function = getattr(module, attribute, None) if attribute else None
    if not callable(function):
        raise RewardFunctionUnusable(f"{name}: there is no such function; write module:function")
    file = getattr(module, "__file__", None)
    if file is None:
        raise RewardFunctionUnusable(f"{name}: its module has no file that a run could be pinned to")

    def score(rollouts: Sequence[Rollout]) -> Iterable[Any]:
        found: Iterable[Any] = function(
            prompts=[rollout.prompt for rollout in rollouts], completions=[rollout.completion for rollout in rollouts]
        )
        return found

    return FunctionScorer(score, hashlib.sha256(Path(file).read_bytes()).hexdigest())


def length_penalty(max_tokens: int) -> FunctionScorer:
    """−1 for every token of a completion above `max_tokens`, the end-of-sequence token included."""
    return FunctionScorer(
        lambda rollouts: [-float(max(0, len(rollout.completion_ids) - max_tokens)) for rollout in rollouts],
        f"max_tokens {max_tokens}",
    )


def format_penalty(pattern: str) -> FunctionScorer:
    """−1 where `pattern` is not found in the completion, else 0."""
    expression = re.compile(pattern)
    return FunctionScorer(
        lambda rollouts: [0.0 if expression.search(rollout.completion) else -1.0 for rollout in rollouts],
        f"pattern {pattern}",
    )


def _imported(module: str, name: str) -> Any:
    """The module, also from the working directory, where a command's own modules are not looked for."""
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    try:
        return importlib.import_module(module)
    except (ImportError, ValueError, SyntaxError) as error:
        raise RewardFunctionUnusable(
            f"{name}: {error}. Its module is looked for in the working directory and where Python looks (PYTHONPATH)"
        ) from error


def _raised(error: Exception) -> str:
    """Where and what; not its message, which may hold a text."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"the function raised {type(error).__name__} in {Path(frame.filename).name}, line {frame.lineno}"
