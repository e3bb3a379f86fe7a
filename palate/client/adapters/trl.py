"""TRL: a reward function for `reward_funcs` of GRPOTrainer and its like."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias, Unpack

from palate.client.adapters.endpoint import Endpoint, Options, content_of, endpoint, scorer_of
from palate.client.types import Failed, Scored, scores_of

_log = logging.getLogger(__name__)

Text: TypeAlias = str | Iterable[Mapping[str, Any]]
"""TRL's standard and conversational formats."""


def reward_function(target: str, *, strict: bool = False, **options: Unpack[Options]) -> RewardFunction:
    """A reward function that asks the reward service at `target`.

    Args:
        target: Address, e.g. "127.0.0.1:50051" or "dns:///reward:50051".
        strict: Raise where a completion has no score, instead of telling TRL that it has none. Beside other reward
            functions TRL adds up what is there, so that a score that is missing counts as 0.
        **options: See `Options`.

    Raises:
        AdapterError: A number is none.
        AccessError: A file cannot be used, or one is missing.
    """
    return RewardFunction(endpoint(target, **options), strict)


class RewardFunction:
    """Scores completions of their prompts; `__name__` is what TRL's metrics call it."""

    def __init__(self, place: Endpoint, strict: bool) -> None:
        self.__name__ = place.model or "palate"
        self._place = place
        self._strict = strict

    def __call__(self, prompts: Sequence[Text], completions: Sequence[Text], **columns: Any) -> list[float | None]:
        """One score per completion, None for one that has none.

        Raises:
            ItemsFailed: A completion has no score, and the function is strict.
            CallError: The service refuses, or stayed away for longer than the patience.
            AdapterError: A message holds more than role and content; the service has another model than before.
        """
        pairs = [(content_of(p), content_of(c)) for p, c in zip(prompts, completions, strict=True)]
        results = scorer_of(self._place).results(pairs)
        if self._strict:
            return [*scores_of(results)]
        self._report([result for result in results if isinstance(result, Failed)], len(results), columns)
        return [result.score if isinstance(result, Scored) else None for result in results]

    def _report(self, failed: list[Failed], count: int, columns: Mapping[str, Any]) -> None:
        log_metric: Callable[[str, float], None] | None = columns.get("log_metric")
        if log_metric is not None and count:
            log_metric(f"{self.__name__}/missing", len(failed) / count)
        if failed:
            codes = ", ".join(f"{code} {times}" for code, times in Counter(f.code for f in failed).items())
            _log.warning("%d of %d completions have no score: %s", len(failed), count, codes)
