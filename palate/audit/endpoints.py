"""Reward models that are asked over the wire: our reward service, and servers of the Open Inference Protocol."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

from palate.audit.items import Text
from palate.audit.scorer import Outcome
from palate.bulk.calls import Calls, halved
from palate.bulk.items import Columns, Limits
from palate.bulk.rows import Entry
from palate.bulk.scoring import scored_entries
from palate.client import Failed, ItemErrorCode, PalateError, ScoreResult
from palate.oip.client import Cut, OipClient, OipModel
from palate.waiting import patiently

_TEXTS = Columns("prompt", "completion")


class PalateScorer:
    """A reward service, asked with patience while it is away; a request that it refuses is taken apart."""

    def __init__(self, calls: Calls, limits: Limits) -> None:
        self._calls = calls
        self._limits = limits

    def score(self, texts: Iterable[Text]) -> Iterator[Sequence[Outcome]]:
        """As `Scorer.score`."""
        entries = (Entry("a probe", {"prompt": each.prompt, "completion": each.completion}) for each in texts)
        for batch in scored_entries(self._calls, entries, _TEXTS, self._limits):
            yield [_of_result(result) for _, (result, _) in batch]


class OipScorer:
    """A server of the Open Inference Protocol, asked likewise; the first reply's version is insisted on."""

    def __init__(self, client: OipClient, model: OipModel, batch: int, waiting: Callable[[PalateError], None]) -> None:
        self._client = client
        self._model = model
        self._batch = batch
        self._waiting = waiting

    def score(self, texts: Iterable[Text]) -> Iterator[Sequence[Outcome]]:
        """As `Scorer.score`."""
        rest = iter(texts)
        while part := [(text.prompt, text.completion) for text in itertools.islice(rest, self._batch)]:
            yield halved(self._asked, part, lambda error: _failed(ItemErrorCode.INVALID, str(error)))

    def _asked(self, pairs: Sequence[tuple[str, str]]) -> list[Outcome]:
        version, partial, cuts = self._model.version, self._model.tells_failures, self._model.tells_cuts
        return patiently(lambda: self._client.score(pairs, version=version, partial=partial, cuts=cuts), self._waiting)


def _of_result(result: ScoreResult) -> Outcome:
    if isinstance(result, Failed):
        return result
    return Cut(result.score) if result.truncated_tokens else result.score


def _failed(code: ItemErrorCode, message: str) -> Failed:
    return Failed(code, message, retryable=False, retry_after=None)
