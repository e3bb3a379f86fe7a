"""A real crowd: reward models from UKPConvArg1's 84,445 votes, plainly and with the reliability of who cast them.

Whole topics are held out. Beside each accuracy stands that of length alone, and the accuracy where the shorter argument
won. Learnt reliabilities are compared with the competence that the corpus gives its workers (MACE, from votes alone).
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from trainer.command import share_processors

FEWEST_VOTES = 10
"""Workers with fewer votes in the training data say too little to be ranked."""

HELD_OUT_TOPICS = 4
DRAWS = 1000


def main() -> None:
    """Trains twice, measures, prints a table and writes results.json."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", type=Path, required=True, help="folder that holds pairs/ukpconvarg1_full.jsonl.gz")
    options.add_argument(
        "--encoder", type=Path, help="Hugging Face folder to start from; none = a bag of words instead"
    )
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--pairs", type=int, default=12000, help="at most so many are learnt from")
    options.add_argument("--held-out", type=int, default=3000, help="at most so many are measured on")
    options.add_argument("--batch-size", type=int, default=32)
    options.add_argument("--seed", type=int, default=0)
    asked = options.parse_args()
    share_processors()
    rows = read(asked.data / "pairs" / "ukpconvarg1_full.jsonl.gz")
    learnt, held_out = split(rows, asked.pairs, asked.held_out, Random(asked.seed))
    write(asked.out / "learnt.jsonl", learnt)
    write(asked.out / "held_out.jsonl", held_out)
    found = trained_both(asked, competence_of(learnt)) if asked.encoder else by_words(asked, competence_of(learnt))
    (asked.out / "results.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    show(found)


def read(file: Path) -> list[dict[str, Any]]:
    """The corpus, with its debate's topic as group; the prompt is the topic's name."""
    with gzip.open(file, "rt", encoding="utf-8") as stream:
        return [row | {"group": row["prompt"]} for row in map(json.loads, stream)]


def split(
    rows: Sequence[dict[str, Any]], most_learnt: int, most_held_out: int, rng: Random
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Pairs of some topics to measure on, of the others to learn from; no more than asked of each."""
    topics = sorted({row["group"] for row in rows})
    away = set(rng.sample(topics, HELD_OUT_TOPICS))
    parts = [[row for row in rows if (row["group"] in away) == apart] for apart in (False, True)]
    learnt, held_out = (
        rng.sample(part, min(most, len(part))) for part, most in zip(parts, (most_learnt, most_held_out), strict=True)
    )
    return learnt, held_out


def write(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """One row a line."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def competence_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The corpus's competence of each worker with enough votes."""
    seen: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        for vote in row["votes"]:
            seen[vote["annotator"]].append(vote["mace_competence"])
    return {name: statistics.fmean(values) for name, values in seen.items() if len(values) >= FEWEST_VOTES}


def trained_both(asked: argparse.Namespace, competence: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """The encoder trained plainly, and with reliabilities."""
    return {rule: trained(asked, rule, competence) for rule in ("ignore", "reliability")}


def by_words(asked: argparse.Namespace, competence: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """The same of a bag of words, which learns from all pairs in seconds."""
    from trainer.data.comparisons import read_comparisons
    from trainer.data.votes import pairs_of
    from trainer.reward_model.bag_of_words import BagOfWords
    from trainer.reward_model.evaluate import evaluate
    from trainer.reward_model.labels import labels_of
    from trainer.reward_model.reliability import Prior, learn_jointly, vote_table

    learnt, held_out = (pairs_of(read_comparisons(asked.out / f"{n}.jsonl").rows) for n in ("learnt", "held_out"))
    rows, votes, labels = [pair.judged() for pair in held_out], vote_table(learnt), labels_of(learnt, "votes")
    words = BagOfWords([pair.judged() for pair in learnt])

    def measured() -> dict[str, Any]:
        differences = words.differences(rows)
        return {"learnt": len(learnt), **asdict(evaluate(rows, differences, [0.0] * len(rows), differences))}

    words.fit(labels.preference, labels.weight)
    plain = measured()
    value = dict(zip(votes.names, learn_jointly(votes, Prior(4.0, 2.0), words.fit).tolist(), strict=True))
    return {"ignore": plain, "reliability": measured() | {"competence": correlation(value, competence, asked.seed)}}


def trained(asked: argparse.Namespace, rule: str, competence: Mapping[str, float]) -> dict[str, Any]:
    """One reward model; what it is worth, and how its reliabilities go with competence."""
    from trainer.reward_model.config import RewardTrainConfig
    from trainer.reward_model.train import run_reward

    result = run_reward(
        RewardTrainConfig.model_validate(
            {
                "model": asked.encoder,
                "data": asked.out / "learnt.jsonl",
                "held_out": asked.out / "held_out.jsonl",
                "out": asked.out / rule,
                "annotators": rule,
                "template": "pair",
                "max_tokens": 128,
                "truncation": "right",
                "batch_size": asked.batch_size,
                "learning_rate": 1e-4,
                "seed": asked.seed,
            }
        )
    )
    found: dict[str, Any] = {"learnt": result.data.learnt, **asdict(result.evaluation)}
    found["error"] = result.sureness.error if result.sureness else None
    if rule == "reliability":
        value = {row.name: row.reliability.value for row in result.annotators if row.reliability is not None}
        found["competence"] = correlation(value, competence, asked.seed)
        found["suspected"] = sum(row.suspected() for row in result.annotators)
    return found


def correlation(value: Mapping[str, float], competence: Mapping[str, float], seed: int) -> dict[str, float]:
    """Spearman's with a bootstrap interval over workers."""
    names, rng = sorted(value.keys() & competence.keys()), Random(seed)

    def of(chosen: Sequence[str]) -> float:
        return float(spearmanr([value[name] for name in chosen], [competence[name] for name in chosen]).statistic)

    drawn = sorted(of(rng.choices(names, k=len(names))) for _ in range(DRAWS))
    low, high = drawn[DRAWS // 40], drawn[-DRAWS // 40 - 1]
    return {"value": of(names), "low": low, "high": high, "count": len(names)}


def show(found: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints what was found, the two trainings side by side."""
    table = Table("", *found, title="UKPConvArg1, topics that were held out")
    for name in ("reward_model", "length_only", "bag_of_words", "shorter_won", "competence"):
        table.add_row(name, *(cell(part.get(name)) for part in found.values()))
    Console(width=120).print(table)


def cell(share: Mapping[str, float] | None) -> str:
    """A value with its interval."""
    return (
        "" if share is None else f"{share['value']:.3f} [{share['low']:.3f}, {share['high']:.3f}] n = {share['count']}"
    )


if __name__ == "__main__":
    main()
