"""How many labels an accuracy takes, at random and by disagreement: `python -m tests.checks.labels --json FILE`.

Active learning in the simulated world: an ensemble of bags of words, each taught a bootstrap of the labels so far, says
which pairs the panel labels next, those on which its members differ most, as `palate collect --choose disagreement`
does; beside it, the same ensemble with pairs taken at random. Both begin with the same labels, and the same pair gets
the same label. Accuracy is the ensemble's mean on fresh pairs of prompt families that nothing was learnt from, against
gold; "needed" is where its mean over three rounds passes the target.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.seeds import keep_rows, kept_rows, mean_and_margin, told
from tests.checks.noise import FRESH, clean_pairs
from trainer.collect.choosing import disagreement
from trainer.data.comparisons import PREFERENCE, Comparison
from trainer.reward_model.bag_of_words import BagOfWords
from trainer.reward_model.evaluate import credit
from trainer.simulation.annotators import Annotator, honest_panel, label
from trainer.simulation.world import compose_mixed, held_out_prompts, train_prompts

TARGET = 0.75
POOLS: Mapping[str, int] = {"random": 1, "one of 4": 4, "one of 16": 16}
"""Way of choosing → pairs drawn for each one that is labelled."""

DRAWN, BEGIN, ROUND, MOST = 12_800, 25, 25, 800
"""Pairs that there are; labels at first, more in a round, and at most."""

MEMBERS = 5
SMOOTHED = 3
"""Rounds over which accuracy is averaged."""


@dataclass(frozen=True, slots=True)
class Row:
    """One run: accuracy after each round, and the labels that the target took; None where it was not reached."""

    seed: int
    choice: str
    labels: list[int]
    accuracies: list[float]
    needed: float | None


class Ensemble:
    """Bags of words over all pairs, taught bootstraps of those that have a label."""

    def __init__(self, pairs: Sequence[Comparison], l2: float) -> None:
        words = BagOfWords(pairs, l2)
        self._members, self._count = [copy(words) for _ in range(MEMBERS)], len(pairs)

    def fit(self, labels: Mapping[int, float], rng: Random) -> np.ndarray:
        """(members, pairs) score(a) − score(b) after learning index → preference."""
        known, preference = list(labels), np.full(self._count, 0.5)
        preference[known] = list(labels.values())
        return np.array([member.fit(preference, self._bootstrap(known, rng)) for member in self._members])

    def _bootstrap(self, known: Sequence[int], rng: Random) -> np.ndarray:
        return np.bincount(rng.choices(known, k=len(known)), minlength=self._count).astype(float)


def measured(seed: int, choice: str, label_error: float, l2: float) -> Row:
    """Learns in rounds until there are `MOST` labels."""
    rng = Random(f"world {seed}")
    pairs, panel = drawn_pairs(rng), honest_panel(label_error)
    fresh = clean_pairs(held_out_prompts(600, rng), FRESH, rng)
    ensemble = Ensemble([*pairs, *fresh], l2)  # words that no labelled pair holds keep the weight 0
    taken: dict[int, float] = {}
    unseen, draw = iter(rng.sample(range(DRAWN), DRAWN)), Random(f"bootstrap {seed} {choice}")
    chosen, accuracies = [next(unseen) for _ in range(BEGIN)], []
    while True:
        taken |= {index: voted(seed, index, pairs[index], panel) for index in chosen}
        differences = ensemble.fit(taken, draw)
        mean = differences[:, DRAWN:].mean(axis=0)
        accuracies.append(fmean(credit(float(d), row) for d, row in zip(mean, fresh, strict=True)))
        if len(taken) >= MOST:
            labels = list(range(BEGIN, MOST + 1, ROUND))
            return Row(seed, choice, labels, accuracies, needed(labels, accuracies, TARGET))
        offered = [next(unseen) for _ in range(ROUND * POOLS[choice])]
        spread = disagreement(differences[:, offered])
        chosen = [index for _, index in sorted(zip(spread, offered, strict=True), reverse=True)[:ROUND]]


def drawn_pairs(rng: Random) -> list[Comparison]:
    """Pairs of composed completions that nobody has labelled."""
    prompts = train_prompts(2000, rng)
    asked = [rng.choice(prompts) for _ in range(DRAWN)]
    return [Comparison(p.text, compose_mixed(p, rng), compose_mixed(p, rng), "tie") for p in asked]


def voted(seed: int, index: int, pair: Comparison, panel: Sequence[Annotator]) -> float:
    """What a random member of the panel says, as a preference for `a`."""
    rng = Random(f"vote {seed} {index}")
    return PREFERENCE[label(rng.choice(panel), pair.prompt, pair.a, pair.b, rng).choice]


def needed(labels: Sequence[int], accuracies: Sequence[float], target: float) -> float | None:
    """Labels at which the accuracy, averaged over rounds, passes the target; between two rounds in proportion."""
    means = [fmean(accuracies[i : i + SMOOTHED]) for i in range(len(accuracies) - SMOOTHED + 1)]
    places = [fmean(labels[i : i + SMOOTHED]) for i in range(len(means))]
    first = next((i for i, mean in enumerate(means) if mean >= target), None)
    if first is None or first == 0:
        return None if first is None else places[0]
    share = (target - means[first - 1]) / (means[first] - means[first - 1])
    return places[first - 1] + share * (places[first] - places[first - 1])


def show(rows: Sequence[Row]) -> None:
    """Labels needed by seed and choice; mean, 90 % interval, and the ratio to random of the same seed."""
    by = {(row.seed, row.choice): row for row in rows}
    seeds = sorted({row.seed for row in rows})
    table = Table("choice", *(f"seed {seed}" for seed in seeds), "mean", "random / this", "accuracy at the end")
    for choice in dict.fromkeys(row.choice for row in rows):
        found = [by[seed, choice].needed if (seed, choice) in by else None for seed in seeds]
        cells = ["–" if value is None else f"{value:.0f}" for value in found]
        whole = [value for value in found if value is not None]
        mean = told_whole(whole) if len(whole) == len(seeds) else "–"
        ends = told([row.accuracies[-1] for row in rows if row.choice == choice])
        table.add_row(choice, *cells, mean, ratio(by, seeds, choice), ends)
    Console(width=140).print(table)


def told_whole(values: Sequence[float]) -> str:
    """Mean and interval without decimals."""
    mean, margin = mean_and_margin(values)
    return f"{mean:.0f} ± {margin:.0f}" if len(values) > 1 else f"{mean:.0f}"


def ratio(by: Mapping[tuple[int, str], Row], seeds: Sequence[int], choice: str) -> str:
    """Geometric mean over seeds, with its interval."""
    logs = []
    for seed in seeds:
        one, other = by.get((seed, "random")), by.get((seed, choice))
        if one is None or other is None or one.needed is None or other.needed is None:
            return "–"
        logs.append(math.log(one.needed / other.needed))
    mean, margin = mean_and_margin(logs)
    if not math.isfinite(margin):
        return f"{math.exp(mean):.2f}"
    return f"{math.exp(mean):.2f} ({math.exp(mean - margin):.2f}–{math.exp(mean + margin):.2f})"


def main() -> int:
    """Runs what the file lacks; 1 where the target is not reached."""
    options = argparse.ArgumentParser(prog="python -m tests.checks.labels", description=__doc__)
    options.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    options.add_argument("--label-error", type=float, default=0.2, help="of the panel, against gold")
    options.add_argument("--l2", type=float, default=4.0, help="penalty of the bags of words")
    options.add_argument("--json", type=Path, required=True, help="file for the figures; what is there stays")
    asked = options.parse_args()
    settings: dict[str, Any] = {
        "target": TARGET, "drawn": DRAWN, "begin": BEGIN, "round": ROUND, "most": MOST, "members": MEMBERS,
        "label_error": asked.label_error, "l2": asked.l2,
    }  # fmt: skip
    rows = [Row(**row) for row in kept_rows(asked.json, settings)]
    for seed in asked.seeds:
        for choice in POOLS:
            if not any((row.seed, row.choice) == (seed, choice) for row in rows):
                rows.append(measured(seed, choice, asked.label_error, asked.l2))
                keep_rows(asked.json, settings, rows)
    show(rows)
    return 0 if all(row.needed is not None for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
