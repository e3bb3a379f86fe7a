"""An AI judge as a labeller: a policy service reads principles and a pair, and is asked for one of two letters.

Nothing is sampled. The judge's log-probabilities of both letters are compared, once with either side first; where its
preference turns around with the order, it has none. Where Constitutional AI begins (Bai et al., 2022).
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import takewhile
from typing import Any, TypeVar

from palate.access import channel_options
from palate.client import InvalidArgument, PolicyClient, PolicyInfo, SamplingParams
from palate.waiting import when_ready
from trainer.collect.causes import Cause
from trainer.collect.config import CollectConfig
from trainer.collect.labelling import Labelled, LeftOut, Verdict
from trainer.collect.pairs import DrawnPair
from trainer.collect.principles import DEFAULT, question, read_principles
from trainer.data.comparisons import Label
from trainer.data.lines import DataError

T = TypeVar("T")

_LETTERS = ("A", "B")

_AT_A_TIME = 8
"""Pairs in one call, each twice."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Log-probabilities of the two letters in one order, in nats."""

    first: float
    second: float

    @property
    def mass(self) -> float:
        """Probability that the judge says one of the two."""
        return math.exp(self.first) + math.exp(self.second)

    @property
    def lean(self) -> float:
        """Log-odds of the answer shown first, in nats."""
        return self.first - self.second


class Judge:
    """Asks a policy service which of two answers is better by written principles."""

    asks_again = False
    batch = 4 * _AT_A_TIME

    def __init__(self, client: PolicyClient, info: PolicyInfo, config: CollectConfig) -> None:
        self._client, self._info, self._least_mass = client, info, config.least_mass
        self._principles = read_principles(config.principles or DEFAULT)
        self._letters = _letter_ids(*self._prompt_ids(_LETTERS, 1))
        self._name = f"judge:{info.model}"
        self.conditions: Mapping[str, Any] = {
            "labeller": "judge",
            "judge": {
                "model": info.model,
                "policy_version": asdict(info.policy_version),
                "template_digest": info.template_digest,
                "principles_digest": hashlib.sha256(question(self._principles, "", "", "").encode()).hexdigest(),
                "least_mass": config.least_mass,
            },
        }

    def verdicts(self, pairs: Sequence[DrawnPair]) -> Iterator[Verdict]:
        """One for each pair; a pair's seconds are its share of a call."""
        for begin in range(0, len(pairs), _AT_A_TIME):
            together, started = pairs[begin : begin + _AT_A_TIME], time.monotonic()
            found = self._readings(together)
            seconds = round((time.monotonic() - started) / len(together), 2)
            for pair, straight, swapped in zip(together, found[::2], found[1::2], strict=True):
                yield self._verdict(pair, straight, swapped, seconds)

    def _verdict(self, pair: DrawnPair, straight: Reading | None, swapped: Reading | None, seconds: float) -> Verdict:
        if straight is None or swapped is None:
            return LeftOut(pair, Cause.REFUSED_BY_JUDGE, self._name, seconds)
        masses, leans = [straight.mass, swapped.mass], (straight.lean, -swapped.lean)
        if min(masses) < self._least_mass or not all(map(math.isfinite, leans)):
            return LeftOut(pair, Cause.UNREADABLE, self._name, seconds, {"judgement": {"mass": masses}})
        judgement = {"margin": sum(leans) / 2, "leans": list(leans), "mass": masses}
        return Labelled(pair, judged(leans), self._name, seconds, {"judgement": judgement})

    def _readings(self, pairs: Sequence[DrawnPair]) -> list[Reading | None]:
        """Two for each pair, `a` first and `b` first; None where the service refuses the text, say as too long."""
        texts = [
            question(self._principles, pair.place.prompt.text, *sides)
            for pair in pairs
            for sides in ((pair.a, pair.b), (pair.b, pair.a))
        ]
        prompts = self._prompt_ids(texts, max(map(len, self._letters)))
        asked = [(prompt, letter) for prompt in prompts if prompt is not None for letter in self._letters]
        values = iter(self._logprobs(asked))
        return [None if prompt is None else Reading(next(values), next(values)) for prompt in prompts]

    def _prompt_ids(self, texts: Sequence[str], room: int) -> list[tuple[int, ...] | None]:
        """Each text as the judge reads it, with room for so many tokens behind; None for those that it refuses."""
        found: list[tuple[int, ...] | None] = []
        for part in self._in_calls(texts):
            try:
                found += self._rendered(part, room)
            except InvalidArgument:
                found += [self._rendered_alone(text, room) for text in part]
        return found

    def _rendered_alone(self, text: str, room: int) -> tuple[int, ...] | None:
        try:
            return self._rendered([text], room)[0]
        except InvalidArgument:
            return None

    def _rendered(self, texts: Sequence[str], room: int) -> list[tuple[int, ...]]:
        """The service renders what it continues; what it says is not looked at."""
        drawn = self._client.generate(
            texts, sampling=SamplingParams(max_new_tokens=room), required_policy_version=self._info.policy_version
        )
        ids = {completion.prompt_index: completion.prompt_token_ids for completion in drawn}
        return [ids[index] for index in range(len(texts))]

    def _logprobs(self, sequences: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> Iterator[float]:
        """Of each completion, its tokens' summed, in nats."""
        for part in self._in_calls(sequences):
            reply = self._client.compute_logprobs(
                part,
                tokenizer_digest=self._info.tokenizer_digest,
                required_policy_version=self._info.policy_version,
            )
            yield from map(math.fsum, reply.logprobs)

    def _in_calls(self, items: Sequence[T]) -> Iterator[Sequence[T]]:
        size = min(self._info.max_prompts, self._info.max_completions)
        return (items[begin : begin + size] for begin in range(0, len(items), size))


def judged(leans: tuple[float, float]) -> Label:
    """What log-odds of `a`, one for each order, say together: a tie where the preference turns with the order."""
    if min(leans) > 0:
        return "a"
    return "b" if max(leans) < 0 else "tie"


def _letter_ids(first: Sequence[int] | None, second: Sequence[int] | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What tells two rendered letters apart: their own ids, without those of template and special tokens around.

    Raises:
        DataError: The tokenizer does not tell them apart.
    """
    if first is None or second is None:
        raise DataError(
            f"the judge refuses a prompt that is one letter ({' or '.join(_LETTERS)}); give another --judge"
        )
    before = _alike(first, second)
    behind = _alike(first[before:][::-1], second[before:][::-1])
    letters = tuple(tuple(ids[before : len(ids) - behind]) for ids in (first, second))
    if not all(letters):
        raise DataError("the judge's tokenizer does not tell the letters A and B apart; give another --judge")
    return letters[0], letters[1]


def _alike(first: Sequence[int], second: Sequence[int]) -> int:
    """Ids that both begin with."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


@contextmanager
def opened_judge(config: CollectConfig) -> Iterator[Judge]:
    """The judge at the address that the configuration names.

    Raises:
        DataError: The principles cannot be read, or the service cannot be asked for log-probabilities.
        PalateError: The service is not there, or refuses.
    """
    options = channel_options(config.access())
    with PolicyClient(config.judge, timeout=config.timeout, options=options) as client:
        info = when_ready(client.policy_info, config.wait)
        if "compute_logprobs" not in info.capabilities:
            raise DataError(f"{config.judge} cannot compute log-probabilities; give another --judge")
        yield Judge(client, info, config)
