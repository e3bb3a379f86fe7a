"""What the demo's panels teach, in seconds: `python -m tests.checks.biased_words`.

The ways of `palate demo --annotators biased` with less: composed pairs instead of sampled ones, a bag of words instead
of a network, and the best of sixteen composed answers instead of a trained policy. What a panel teaches shows already;
how far a policy goes after it does not.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
from rich.console import Console
from rich.table import Table

from trainer.data.comparisons import Comparison
from trainer.data.votes import pairs_of
from trainer.demo.biased.ways import Way, ways
from trainer.reward_model.bag_of_words import BagOfWords
from trainer.reward_model.reliability import Prior, learn_jointly, vote_table
from trainer.simulation.annotators import Annotator, label
from trainer.simulation.gold import gold_reward
from trainer.simulation.world import business_idea_examples, compose_mixed, held_out_prompts, train_prompts

PAIRS, PROMPTS, CANDIDATES = 2000, 64, 16
PRIOR = Prior(4.0, 2.0)
WORDS = ("biased", "honest", "plain", "reliability", "majority")
"""A bag of words has no heads: the ways without an ensemble."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a way teaches.

    Attributes:
        honest_wins: Paraphrases of the business-idea question, of 20, on which honesty scores above flattery.
        gain: Gold of the best of sixteen answers above the mean answer's, in SD of all answers.
    """

    honest_wins: int
    gain: float


@dataclass(frozen=True, slots=True)
class World:
    """Pairs to label, and answers to pick from."""

    shown: Sequence[tuple[str, str, str]]
    asked: Sequence[tuple[str, list[str]]]
    gold: Sequence[Sequence[float]]


def main() -> None:
    """Prints a table of all seeds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 100, 101, 102], help="seeds to run")
    arguments = parser.parse_args()
    table = Table("way", *(f"seed {seed}" for seed in arguments.seeds), title="honest wins of 20; gold gained (SD)")
    found = [outcomes(seed) for seed in arguments.seeds]
    for name in WORDS:
        table.add_row(name, *(f"{each[name].honest_wins}; {each[name].gain:+.2f}" for each in found))
    Console(width=120, highlight=False).print(table)


def outcomes(seed: int) -> dict[str, Outcome]:
    """What every way teaches in one world."""
    rng = Random(f"{seed}/words")
    shown = [(p.text, compose_mixed(p, rng), compose_mixed(p, rng)) for p in train_prompts(PAIRS, rng)]
    asked = [(p.text, [compose_mixed(p, rng) for _ in range(CANDIDATES)]) for p in held_out_prompts(PROMPTS, rng)]
    world = World(shown, asked, [[gold_reward(prompt, each) for each in answers] for prompt, answers in asked])
    return {way.name: _outcome(_learnt(world, way, seed), world) for way in ways(0.2) if way.name in WORDS}


def _learnt(world: World, way: Way, seed: int) -> BagOfWords:
    rows = _labelled(world, way.panel, Random(f"{seed}/votes"))
    model = BagOfWords(rows)
    if way.annotators == "reliability":
        # Rows of the same two texts become one pair: the features have to be those of the pairs.
        pairs = pairs_of(rows)
        model = BagOfWords([Comparison(pair.prompt, pair.a, pair.b, pair.judged().label) for pair in pairs])
        learn_jointly(vote_table(pairs), PRIOR, model.fit)
    return model


def _labelled(world: World, panel: Sequence[Annotator], rng: Random) -> list[Comparison]:
    votes = [label(rng.choice(panel), *pair, rng) for pair in world.shown]
    return [Comparison(*pair, vote.choice, vote.annotator) for pair, vote in zip(world.shown, votes, strict=True)]


def _outcome(model: BagOfWords, world: World) -> Outcome:
    ideas = [Comparison(prompt.text, honest, flattery, "tie") for prompt, honest, flattery in business_idea_examples()]
    picked = [
        golds[int(np.argmax(model.differences([Comparison(prompt, each, "", "tie") for each in answers])))]
        for (prompt, answers), golds in zip(world.asked, world.gold, strict=True)
    ]
    every = [gold for golds in world.gold for gold in golds]
    gain = (statistics.fmean(picked) - statistics.fmean(every)) / statistics.pstdev(every)
    return Outcome(sum(difference > 0 for difference in model.differences(ideas)), gain)


if __name__ == "__main__":
    main()
