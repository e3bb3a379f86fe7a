"""Pairs to compare: passes over the prompts, and two completions of each from the policy service."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from random import Random
from typing import Any, TypeAlias

from palate.client import InvalidArgument, PolicyClient, PolicyVersion, SamplingParams
from trainer.collect.config import CollectConfig
from trainer.data.prompts import PromptRow
from trainer.in_order import in_order

PairKey: TypeAlias = int


@dataclass(frozen=True, slots=True)
class Place:
    """One attempt: the same seed and number give the same prompt, draws and label, whatever came before."""

    number: int
    prompt: PromptRow
    seed: int


@dataclass(frozen=True, slots=True)
class DrawnPair:
    """Two completions of a prompt.

    Attributes:
        place: The attempt.
        a: Text of the first draw.
        b: Text of the second one.
        finish_reasons: Why each ended.
        choice: Why this pair was chosen, for the provenance; empty where all are taken.
    """

    place: Place
    a: str
    b: str
    finish_reasons: tuple[str, str]
    choice: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> PairKey:
        """The same for the same two texts of a prompt, whichever was drawn first."""
        return pair_key(self.place.prompt.text, self.a, self.b)


Drawn: TypeAlias = DrawnPair | None
"""None where the policy refuses the prompt, say as too long."""


@dataclass(frozen=True, slots=True)
class Batches:
    """Which attempts are made: from number `begin` to `end`, `size` in one call."""

    begin: int
    end: int
    size: int


def pair_key(prompt: str, a: str, b: str) -> PairKey:
    """Of two texts of a prompt."""
    return hash((prompt, min(a, b), max(a, b)))


def places(config: CollectConfig, prompts: Sequence[PromptRow], begin: int, count: int) -> Iterator[Place]:
    """Attempts `begin`, `begin` + 1, …: passes over all prompts, each in an order of its own."""
    for number in range(begin, begin + count):
        turn, index = divmod(number, len(prompts))
        prompt = prompts[_order(config.seed, turn, len(prompts))[index]]
        yield Place(number, prompt, Random(f"{config.seed}/draw/{number}").getrandbits(63))


@lru_cache(maxsize=2)
def _order(seed: int, turn: int, size: int) -> tuple[int, ...]:
    return tuple(Random(f"{seed}/order/{turn}").sample(range(size), size))


def drawn_pairs(
    policy: PolicyClient, prompts: Sequence[PromptRow], config: CollectConfig, version: PolicyVersion, asked: Batches
) -> Generator[list[Drawn]]:
    """Pairs of the attempts, batch by batch in their order; the service works on the next ones meanwhile.

    A service that decodes several calls together fills the places of short completions with the next call's.
    """
    numbers = range(asked.begin, asked.end, asked.size)
    calls = (list(places(config, prompts, number, asked.size)) for number in numbers)
    return in_order(lambda tried: _sampled(policy, tried, config, version), calls, config.concurrency)


def _sampled(
    policy: PolicyClient, tried: Sequence[Place], config: CollectConfig, version: PolicyVersion
) -> list[Drawn]:
    """Two completions for each place; a prompt that the policy refuses does not take the others with it.

    Raises:
        InvalidArgument: It refuses all of them.
    """
    try:
        return list(_asked(policy, tried, config, version))
    except InvalidArgument:
        alone = [_sampled_alone(policy, place, config, version) for place in tried] if len(tried) > 1 else []
        if not any(alone):
            raise
        return alone


def _sampled_alone(policy: PolicyClient, place: Place, config: CollectConfig, version: PolicyVersion) -> Drawn:
    try:
        return next(_asked(policy, [place], config, version))
    except InvalidArgument:
        return None


def _asked(
    policy: PolicyClient, tried: Sequence[Place], config: CollectConfig, version: PolicyVersion
) -> Iterator[DrawnPair]:
    """Two completions for each place, all drawn from the same weights."""
    found = list(
        policy.generate(
            [place.prompt.text for place in tried],
            sampling=SamplingParams(temperature=config.temperature, max_new_tokens=config.max_new_tokens),
            completions_per_prompt=2,
            seeds=[place.seed for place in tried],
            required_policy_version=version,
        )
    )
    by_index = {(completion.prompt_index, completion.completion_index): completion for completion in found}
    for index, place in enumerate(tried):
        a, b = by_index[index, 0], by_index[index, 1]
        yield DrawnPair(place, a.text, b.text, (a.finish_reason.value, b.finish_reason.value))
