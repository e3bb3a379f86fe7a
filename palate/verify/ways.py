"""The ways to a score over the wire: alone, in batches, ranked, streamed."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from palate.client import Failed, ItemErrorCode, PalateError, Ranked, RewardClient, ScoreResult, Truncation
from palate.client import Scored as ItemScore
from palate.client.types import scores_of
from palate.models.agreement import Scored, Scores
from palate.models.probe_texts import Pair

_ROUNDS, _SEED = 3, 0

_UNTAKEN = frozenset({ItemErrorCode.INVALID, ItemErrorCode.TOO_LONG})


class VerifyError(PalateError):
    """There is nothing that could be verified; the message says why."""


@dataclass(frozen=True, slots=True, eq=False)
class Alone:
    """The texts, each scored by a call of its own.

    Attributes:
        pairs: Those that have a score.
        scores: (N,) it.
        untaken: Texts that the model's template does not take, by their place in what was asked, and why.
    """

    pairs: tuple[Pair, ...]
    scores: Scores
    untaken: Mapping[int, str]


def score_alone(client: RewardClient, pairs: Sequence[Pair]) -> Alone:
    """One call after the other, so that no text has company.

    Raises:
        VerifyError: Fewer than two have a score.
        ItemsFailed: One has none although the model takes it.
        CallError: A call failed.
    """
    results = [_score(client, [pair])[0] for pair in pairs]
    untaken = {
        place: result.message
        for place, result in enumerate(results)
        if isinstance(result, Failed) and result.code in _UNTAKEN
    }
    scores_of([result for place, result in enumerate(results) if place not in untaken])
    taken = {place: result.score for place, result in enumerate(results) if isinstance(result, ItemScore)}
    if len(taken) < 2:
        raise VerifyError(f"{len(taken)} of {len(pairs)} texts have a score: {next(iter(untaken.values()), 'too few')}")
    return Alone(tuple(pairs[place] for place in taken), np.array(list(taken.values())), untaken)


def again(client: RewardClient, pairs: Sequence[Pair]) -> Iterator[Scored]:
    """Every text by itself."""
    for place, pair in enumerate(pairs):
        yield _scored([place], scores_of(_score(client, [pair])))


def batched(client: RewardClient, pairs: Sequence[Pair]) -> Iterator[Scored]:
    """Calls of many texts: everything at once, then every text in a random company of a random size, several times."""
    draw, most = random.Random(_SEED), client.model_info().max_items
    places = list(range(len(pairs)))
    sizes = [most, *(draw.randint(2, max(2, len(pairs) // 2)) for _ in range(_ROUNDS))]
    for size in sizes:
        for begin in range(0, len(places), size):
            batch = places[begin : begin + size]
            yield _scored(batch, scores_of(_score(client, [pairs[place] for place in batch])))
        draw.shuffle(places)


def ranked(client: RewardClient, pairs: Sequence[Pair]) -> Iterator[Scored]:
    """The completions of every prompt that has several, in one call: engines may compute the prompt once."""
    by_prompt: dict[str, list[int]] = defaultdict(list)
    for place, (prompt, _) in enumerate(pairs):
        by_prompt[prompt].append(place)
    most = client.model_info().max_items
    for prompt, places in by_prompt.items():
        if len(places) > 1:
            ranking = client.rank(prompt, [pairs[place][1] for place in places[:most]], truncation=Truncation.LEFT)
            found = [each.scored if isinstance(each, Ranked) else each for each in ranking.results]
            yield _scored(places[:most], scores_of(found))


def streamed(client: RewardClient, pairs: Sequence[Pair]) -> Iterator[Scored]:
    """All texts through one stream, which mixes them as they come."""
    with client.score_stream(pairs, truncation=Truncation.LEFT) as stream:
        results = dict(stream)
    yield _scored(list(results), scores_of(list(results.values())))


WAYS: Mapping[str, Callable[[RewardClient, Sequence[Pair]], Iterator[Scored]]] = {
    "alone, again": again,
    "batched": batched,
    "ranked": ranked,
    "streamed": streamed,
}
"""Each compared with the scores of the texts alone."""


def _score(client: RewardClient, pairs: Sequence[Pair]) -> tuple[ScoreResult, ...]:
    prompts, completions = zip(*pairs, strict=True)
    return tuple(client.score(prompts, completions, truncation=Truncation.LEFT).results)


def _scored(places: Sequence[int], scores: Sequence[float]) -> Scored:
    return Scored(np.array(places, np.intp), np.array(scores))
