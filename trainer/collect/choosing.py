"""Which of the drawn pairs are compared: all, or those on which the members of a served ensemble differ most."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from scipy.special import expit

from palate.access import channel_options
from palate.client import ModelInfo, RewardClient, Scored, ScoreResult
from palate.waiting import when_ready
from trainer.collect.causes import Cause
from trainer.collect.config import CollectConfig
from trainer.collect.labelling import Tally
from trainer.collect.pairs import DrawnPair
from trainer.data.lines import DataError

BLOCK = 128
"""Pairs among which one choice is made; one call draws them."""


class Chooser(Protocol):
    """Takes pairs out of a block.

    Attributes:
        conditions: What must be the same for all rows of a file, by name.
        together: Attempts that make a block.
        pool: Attempts made for each pair that is compared.
    """

    conditions: Mapping[str, Any]
    together: int
    pool: int

    def chosen(self, pairs: Sequence[DrawnPair], missing: int, tally: Tally) -> Sequence[DrawnPair]:
        """Those to compare, in this order, where so many were missing when the block began."""
        ...


class Everything:
    """Takes all pairs, which are as random as the draws."""

    conditions: Mapping[str, Any] = {"choose": None}
    together = 1
    pool = 1

    def chosen(self, pairs: Sequence[DrawnPair], missing: int, tally: Tally) -> Sequence[DrawnPair]:
        """All."""
        return pairs


class Disagreement:
    """Takes one of `pool` pairs: those on whose preference an ensemble's members differ most, most of all first."""

    together = BLOCK

    def __init__(self, client: RewardClient, info: ModelInfo, config: CollectConfig) -> None:
        self._client, self._info, self.pool, self._timeout = client, info, config.pool, config.timeout
        named = {"model": info.provenance.model, "revision": info.provenance.revision}
        self.conditions: Mapping[str, Any] = {"choose": {"by": "disagreement", "pool": config.pool, **named}}

    def chosen(self, pairs: Sequence[DrawnPair], missing: int, tally: Tally) -> Sequence[DrawnPair]:
        """Pairs of which a side cannot be scored (too long for the ensemble, say) are left out and counted.

        Of a last block only as many are looked at as what is missing is chosen from: the first of all 128 would be
        chosen from more than `pool` each, so that the file's end would hold other pairs than the rest.
        """
        pairs = pairs[: self.pool * missing]
        found = self._scored(pairs)
        scored = [(pair, sides) for pair, sides in zip(pairs, found, strict=True) if sides is not None]
        tally.left_out[Cause.UNSCORED] += len(pairs) - len(scored)
        if not scored:
            return []
        differences = np.array([np.subtract(*sides) for _, sides in scored]).T
        measured = zip(disagreement(differences, self._info.logit_scale), (pair for pair, _ in scored), strict=True)
        most = heapq.nlargest(max(1, len(scored) // self.pool), measured, key=lambda each: each[0])
        return [replace(pair, choice={"disagreement": value}) for value, pair in most]

    def _scored(self, pairs: Sequence[DrawnPair]) -> list[tuple[Sequence[float], Sequence[float]] | None]:
        """(members' scores of a, of b) of each pair; None where a side can have none."""
        texts = [(pair.place.prompt.text, text) for pair in pairs for text in (pair.a, pair.b)]
        revision = self._info.provenance.revision
        with self._client.score_stream(
            texts, timeout_per_item=self._timeout, members=True, revision=revision
        ) as stream:
            results = dict(stream)
        members = [_members(results[index]) for index in range(len(texts))]
        sides = zip(members[::2], members[1::2], strict=True)
        return [None if a is None or b is None else (a, b) for a, b in sides]


def disagreement(differences: np.ndarray, logit_scale: float = 1.0) -> list[float]:
    """Standard deviation over members of the probability that the first side is better (Christiano et al., 2017).

    Args:
        differences: (M, N) score(a) − score(b) of each member and pair.
        logit_scale: Factor on differences in the Bradley–Terry probability.

    Returns:
        (N,) between 0, where members agree, and ½.
    """
    values: list[float] = expit(logit_scale * differences).std(axis=0).tolist()
    return values


@contextmanager
def opened_chooser(config: CollectConfig) -> Iterator[Chooser]:
    """The one that the configuration asks for.

    Raises:
        DataError: The reward model has no members.
        PalateError: The reward service is not there, or refuses.
    """
    if config.choose == "random":
        yield Everything()
        return
    options = channel_options(config.access())
    with RewardClient(config.reward, model=config.reward_model, timeout=config.timeout, options=options) as client:
        info = when_ready(client.model_info, config.wait)
        if not info.members:
            raise DataError(
                f"the reward model {info.provenance.model} has no members that could disagree; serve an ensemble "
                "(palate ensemble makes one folder of several), or leave out --choose disagreement"
            )
        yield Disagreement(client, info, config)


def _members(result: ScoreResult) -> Sequence[float] | None:
    """Every member's score; None where the text itself is in the way.

    Raises:
        DataError: It may have one another time, so that the choice would depend on the moment.
    """
    if isinstance(result, Scored):
        return result.members
    if result.retryable:
        raise DataError(f"the ensemble did not score a text ({result.code}: {result.message}); start again later")
    return None
