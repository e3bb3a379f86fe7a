"""Do reliabilities that are learnt jointly hold what they promise? `python -m tests.checks.noise`.

Forty annotators of the simulated world judge pairs of composed completions; how reliable each is comes from a mixture
of Beta distributions, some say the contrary on purpose. A bag of words learns from their votes: plainly, from
majorities, after Dawid–Skene, jointly with reliabilities, and from clean labels. Measured are the Spearman correlation
of learnt and true reliability, and how much of what noise costs comes back: (jointly − plain) / (clean − plain),
accuracies on fresh pairs of prompt families that nothing was learnt from.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from trainer.data.comparisons import SWAPPED, Comparison
from trainer.data.votes import Pair, Vote
from trainer.reward_model.bag_of_words import BagOfWords
from trainer.reward_model.config import LabelRule
from trainer.reward_model.evaluate import credit
from trainer.reward_model.labels import labels_of
from trainer.reward_model.reliability import Prior, learn_jointly, vote_table
from trainer.simulation.annotators import TIE_MARGIN
from trainer.simulation.gold import gold_reward
from trainer.simulation.prompts import Prompt
from trainer.simulation.world import compose_mixed, held_out_prompts, train_prompts

ANNOTATORS = 40
MIXTURES = {
    0.25: ((0.600, 18, 2), (0.250, 14, 7), (0.150, 3, 9)),
    0.40: ((0.575, 16, 4), (0.150, 10, 10), (0.275, 3, 12)),
}
"""By mean flip rate: (share, a, b) of each Beta(a, b) of reliability; careful, careless, adversarial annotators."""

FRESH = 1000
LEAST_SPEARMAN, LEAST_RECOVERY, COST = 0.9, 0.5, 0.03
"""The bars; recovery counts where noise costs at least so much accuracy."""

L2 = 4.0
PRIOR = Prior(4.0, 2.0)


@dataclass(frozen=True, slots=True)
class Setting:
    """What the votes are like: each annotator casts between `fewest` and `most`, each pair gets `per_pair`."""

    flip: float
    fewest: int
    most: int
    per_pair: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """One world: accuracies on fresh pairs, and how well reliabilities were learnt.

    `known` is the Spearman correlation that somebody would reach who knows every right answer, from the same votes.
    """

    seed: int
    mean_flip: float
    adversaries: int
    votes: int
    plain: float
    majority: float
    dawid_skene: float | None
    jointly: float
    clean: float
    spearman: float
    known: float

    @property
    def recovery(self) -> float | None:
        """None where noise costs too little to tell."""
        cost = self.clean - self.plain
        return (self.jointly - self.plain) / cost if cost >= COST else None

    def holds(self) -> bool:
        """Whether both bars are met."""
        return self.spearman >= LEAST_SPEARMAN and (self.recovery is None or self.recovery >= LEAST_RECOVERY)


def measured(setting: Setting, seed: int) -> Outcome:
    """Makes a world, and learns from it in every way."""
    rng = Random(f"{seed}/{setting.flip}")
    reliability = panel(setting.flip, rng)
    deck = dealt(setting, rng)
    clean = clean_pairs(train_prompts(2000, rng), len(deck), rng)
    fresh = clean_pairs(held_out_prompts(600, rng), FRESH, rng)
    pairs = [voted(row, who, reliability, rng) for row, who in zip(clean, deck, strict=True)]
    votes = vote_table(pairs)
    words = BagOfWords(clean, L2)

    def accuracy() -> float:
        return statistics.fmean(credit(d, row) for d, row in zip(words.differences(fresh), fresh, strict=True))

    def by(rule: LabelRule) -> float:
        labels = labels_of(pairs, rule)
        words.fit(labels.preference, labels.weight * setting.per_pair)
        return accuracy()

    weight = np.array([float(len(pair.votes)) for pair in pairs])
    words.fit(np.array([row.preference for row in clean]), weight)
    clean_accuracy, plain, majority = accuracy(), by("votes"), by("majority")
    dawid_skene = by("dawid-skene") if setting.per_pair > 1 else None
    by("votes")
    learnt = learn_jointly(votes, PRIOR, words.fit)
    true = [reliability[int(name)] for name in votes.names]
    right = votes.per_annotator(votes.preference == np.array([row.preference for row in clean])[votes.pair])
    return Outcome(
        seed,
        1.0 - statistics.fmean(reliability),
        sum(value < 0.5 for value in reliability),
        len(votes.pair),
        plain,
        majority,
        dawid_skene,
        accuracy(),
        clean_accuracy,
        float(spearmanr(learnt, true).statistic),
        float(spearmanr(right / votes.per_annotator(np.ones(len(votes.pair))), true).statistic),
    )


def panel(flip: float, rng: Random) -> list[float]:
    """Reliabilities of the forty."""
    return [rng.betavariate(a, b) for share, a, b in MIXTURES[flip] for _ in range(round(share * ANNOTATORS))]


def dealt(setting: Setting, rng: Random) -> list[list[int]]:
    """Who judges each pair: different annotators, who have as many votes each as they were given."""
    left = {who: rng.randint(setting.fewest, setting.most) for who in range(ANNOTATORS)}
    deck = []
    while sum(count > 0 for count in left.values()) >= setting.per_pair:
        order = sorted(left, key=lambda who: (-left[who], rng.random()))[: setting.per_pair]
        for who in order:
            left[who] -= 1
        deck.append(order)
    rng.shuffle(deck)
    return deck


def clean_pairs(prompts: Sequence[Prompt], count: int, rng: Random) -> list[Comparison]:
    """Pairs of composed completions that differ in gold, labelled by it."""
    rows: list[Comparison] = []
    while len(rows) < count:
        prompt = rng.choice(prompts)
        a, b = compose_mixed(prompt, rng), compose_mixed(prompt, rng)
        difference = gold_reward(prompt.text, a) - gold_reward(prompt.text, b)
        if abs(difference) >= TIE_MARGIN:
            rows.append(Comparison(prompt.text, a, b, "a" if difference > 0 else "b"))
    return rows


def voted(row: Comparison, who: Sequence[int], reliability: Sequence[float], rng: Random) -> Pair:
    """A vote of each; how often it is right is their reliability."""
    votes = [Vote(f"{k:02}", row.label if rng.random() < reliability[k] else SWAPPED[row.label]) for k in who]
    return Pair(row.prompt, row.a, row.b, tuple(votes))


def show(setting: Setting, outcomes: Sequence[Outcome]) -> None:
    """Prints a table."""
    columns = ("seed", "flips", "adversaries", "votes", "plain", "majority", "Dawid-Skene", "jointly", "clean")
    title = (
        f"mean flip rate {setting.flip:.0%}, {setting.fewest} to {setting.most} votes each, {setting.per_pair} a pair"
    )
    table = Table(*columns, "recovery", "Spearman", "of the best", "holds", title=title)
    for o in outcomes:
        accuracies = (o.plain, o.majority, o.dawid_skene, o.jointly, o.clean, o.recovery, o.spearman, o.known)
        cells = ["–" if value is None else f"{value:.3f}" for value in accuracies]
        front = (str(o.seed), f"{o.mean_flip:.2f}", str(o.adversaries), str(o.votes))
        table.add_row(*front, *cells, "yes" if o.holds() else "NO")
    Console(width=140).print(table)


def main() -> int:
    """Measures all settings; 1 where a bar is missed."""
    options = argparse.ArgumentParser(prog="python -m tests.checks.noise", description=__doc__)
    options.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    options.add_argument("--fewest", type=int, default=50, help="votes of the annotator who has the fewest")
    options.add_argument("--most", type=int, default=250)
    options.add_argument("--per-pair", type=int, default=3, help="annotators that judge a pair")
    options.add_argument("--json", type=Path, help="file for the figures")
    asked = options.parse_args()
    found: dict[float, list[Outcome]] = {}
    for flip in MIXTURES:
        setting = Setting(flip, asked.fewest, asked.most, asked.per_pair)
        found[flip] = [measured(setting, seed) for seed in asked.seeds]
        show(setting, found[flip])
    if asked.json:
        document = {str(flip): [asdict(o) | {"recovery": o.recovery} for o in rows] for flip, rows in found.items()}
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        asked.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 0 if all(outcome.holds() for rows in found.values() for outcome in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
