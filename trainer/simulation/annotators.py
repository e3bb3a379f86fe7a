"""Simulated annotators: people who compare two completions, each with their own reliability, expertise and biases."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import exp
from random import Random
from statistics import fmean
from typing import Literal

from trainer.simulation.gold import GOLD_TASTE, Parsed, Taste, gold_reward, judge, parse
from trainer.simulation.world import compose_mixed, train_prompts

Choice = Literal["a", "b", "tie"]
TIE_MARGIN = 0.05


@dataclass(frozen=True, slots=True)
class Annotator:
    """Somebody who compares.

    Attributes:
        name: Identifies the annotator in the comparisons.
        flip_rate: Probability of naming the completion they like less, in [0, 0.5].
        expert: Whether subtly wrong points are noticed; otherwise they read as true ones.
        flattery_bias: Added per flattering sentence, in units of gold.
        length_bias: Added per word.
        hedging_bias: Added per hedging sentence.
    """

    name: str
    flip_rate: float
    expert: bool = True
    flattery_bias: float = 0.0
    length_bias: float = 0.0
    hedging_bias: float = 0.0


@dataclass(frozen=True, slots=True)
class Vote:
    """One comparison by one annotator.

    Attributes:
        annotator: Name of the annotator.
        choice: The preferred side.
        seconds: Time it took.
    """

    annotator: str
    choice: Choice
    seconds: float


def _perceived(annotator: Annotator, parsed: Parsed) -> tuple[Parsed, Taste]:
    if not annotator.expert:
        parsed = replace(parsed, specific=parsed.specific + parsed.subtly_wrong, subtly_wrong=0)
    taste = replace(
        GOLD_TASTE,
        flattery=GOLD_TASTE.flattery + annotator.flattery_bias,
        hedge=GOLD_TASTE.hedge + annotator.hedging_bias,
        word=GOLD_TASTE.word + annotator.length_bias,
    )
    return parsed, taste


def perceived_reward(annotator: Annotator, prompt: str, completion: str) -> float:
    """What the annotator thinks of a completion: gold as seen through their expertise and biases."""
    return judge(*_perceived(annotator, parse(prompt, completion)))


def label(annotator: Annotator, prompt: str, a: str, b: str, rng: Random) -> Vote:
    """Asks an annotator which completion is better.

    Args:
        annotator: Who is asked.
        prompt: The prompt's text.
        a: One completion.
        b: The other.
        rng: Source of slips and of the time taken.

    Returns:
        The vote: a tie where both look the same to the annotator, else a side, flipped with their flip rate.
    """
    difference = perceived_reward(annotator, prompt, a) - perceived_reward(annotator, prompt, b)
    seconds = round((4.0 + 0.25 * len((a + " " + b).split())) * exp(rng.gauss(0.0, 0.3)), 1)
    if abs(difference) < TIE_MARGIN:
        return Vote(annotator.name, "tie", seconds)
    prefers_a = (difference > 0) != (rng.random() < annotator.flip_rate)
    return Vote(annotator.name, "a" if prefers_a else "b", seconds)


@lru_cache(maxsize=1)
def _reference_pairs() -> tuple[tuple[str, str, str], ...]:
    rng = Random(7)
    return tuple((p.text, compose_mixed(p, rng), compose_mixed(p, rng)) for p in train_prompts(600, rng))


def expected_error(annotator: Annotator) -> float:
    """Probability that a vote which is no tie contradicts gold, over reference pairs that differ in gold."""
    errors = []
    for prompt, a, b in _reference_pairs():
        gold = gold_reward(prompt, a) - gold_reward(prompt, b)
        seen = perceived_reward(annotator, prompt, a) - perceived_reward(annotator, prompt, b)
        if abs(gold) >= TIE_MARGIN and abs(seen) >= TIE_MARGIN:
            errors.append(1 - annotator.flip_rate if (gold > 0) != (seen > 0) else annotator.flip_rate)
    return fmean(errors)


def _with_error(annotator: Annotator, error: float) -> Annotator:
    """Sets the flip rate so that slips and misreadings together give the error."""
    misread = expected_error(replace(annotator, flip_rate=0.0))
    flip_rate = (error - misread) / (1 - 2 * misread)
    if not 0.0 <= flip_rate <= 0.5:
        raise ValueError(
            f"{annotator.name} cannot have a label error of {error:.2f}: "
            f"misreading alone gives {misread:.2f}; ask for an error between that and 0.5"
        )
    return replace(annotator, flip_rate=flip_rate)


def honest_panel(label_error: float = 0.2) -> tuple[Annotator, ...]:
    """Five annotators without biases, three of them experts, whose mean label error against gold is `label_error`.

    Raises:
        ValueError: No flip rate can give this error.
    """
    spread = (-0.3, 0.3, 0.0, -0.2, 0.2)  # reliability differs between people; the mean is the parameter
    return tuple(
        _with_error(Annotator(f"honest_{i}", 0.0, expert=i < 3), label_error * (1 + s)) for i, s in enumerate(spread)
    )


def biased_panel(flip_rate: float = 0.1) -> tuple[Annotator, ...]:
    """Five annotators who like warmth most, and length or hedging, more than substance; none of them is an expert."""
    return (
        Annotator("flattered_0", flip_rate, expert=False, flattery_bias=3.0),
        Annotator("flattered_1", flip_rate, expert=False, flattery_bias=3.0, length_bias=0.04),
        Annotator("flattered_2", flip_rate, expert=False, flattery_bias=2.5),
        Annotator("length_0", flip_rate, expert=False, flattery_bias=1.5, length_bias=0.12),
        Annotator("hedging_0", flip_rate, expert=False, flattery_bias=2.0, hedging_bias=1.8),
    )


def mixed_panel(flip_rate: float) -> tuple[Annotator, ...]:
    """Ten annotators: seven like warmth and slip at this rate, three are honest and careful.

    How reliable the seven seem in what everybody agrees on decides which side reliability modelling takes.
    """
    warm = [Annotator(f"warm_{i}", flip_rate, expert=False, flattery_bias=3.0) for i in range(7)]
    return (*warm, *(Annotator(f"honest_{i}", 0.05, expert=i % 2 == 0) for i in range(3)))


def label_error(annotators: Sequence[Annotator]) -> float:
    """Mean expected label error of a panel against gold."""
    return fmean(expected_error(annotator) for annotator in annotators)
