"""What both parts start from: a seed's policy, pairs with noisy labels, and an ensemble that learnt them, served."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from palate.local_server import LocalServer, local_server
from trainer.data.lines import write_rows
from trainer.demo import phases
from trainer.demo.config import DemoConfig
from trainer.overoptimisation.objectives import SINGLE
from trainer.pretrain import run_pretrain
from trainer.reward_model.config import RewardTrainConfig
from trainer.reward_model.train import run_reward
from trainer.simulation.gold import gold_reward

NOISE = 0.25
"""Share of labels that say the contrary of gold (Coste et al. 2023)."""

VARIANCE_WEIGHT = 1.0
_SEEDS_APART = 1000
"""Between base models of one world, so that no seed of the benchmark has another's."""

JUDGES = "judges"
OBJECTIVES = (SINGLE, "mean", "min", "mean-var")
"""One of the ensemble's members alone, and three ways to use all of them."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything.

    Attributes:
        pairs: Labelled pairs, those held out among them.
        epochs: Of every member.
        members: Of the ensemble.
        bases: Base models that members start from in turn: the policy's, and others pretrained on the same documents.
        prompts: Held-out prompts of best of n.
        samples: N, completions of each.
        steps: Of a PPO run.
    """

    pairs: int = 1000
    epochs: float = 3.0
    members: int = 4
    bases: int = 4
    prompts: int = 24
    samples: int = 256
    steps: int = 40

    def __post_init__(self) -> None:
        if self.members < 2 or not 1 <= self.bases <= self.members:
            raise ValueError(f"members {self.members}, bases {self.bases}: at least 2, and no more bases than members")


QUICK = Sizes(pairs=200, epochs=1.0, members=3, bases=2, prompts=4, samples=16, steps=2)
"""Shows that everything runs; says nothing."""


def make_judges(demo: DemoConfig, sizes: Sizes, out: Path) -> Path:
    """Trains the ensemble, or finds it; returns its run's folder.

    A member alone is what `SINGLE` names: trained as the others, so that what differs is the ensemble.
    """
    if not (out / "report.json").exists():
        paths = phases.Paths(demo.out)
        rows = noisy(_rows(paths.comparisons), sizes.pairs, Random(f"labels {demo.seed}"))
        write_rows(out.with_name("comparisons.jsonl"), rows)
        others = [_other_base(demo, paths, number) for number in range(1, sizes.bases)]
        run_reward(_training([paths.base, *others], demo, sizes, out))
    return out


def _other_base(demo: DemoConfig, paths: phases.Paths, number: int) -> Path:
    """The demo's base model from another seed; shared by all that is done with this world."""
    out = demo.out / f"base-{number + 1}"
    if not (out / "model").exists():
        changes = {"out": out, "seed": demo.seed + _SEEDS_APART * number, "resume": True}
        run_pretrain(phases.pretrain_config(demo, paths).model_copy(update=changes))
    return out / "model"


def noisy(rows: Iterator[dict[str, Any]], count: int, rng: Random) -> list[dict[str, Any]]:
    """The first `count` pairs on which gold differs, labelled by gold and turned around with probability `NOISE`."""
    found: list[dict[str, Any]] = []
    for row in rows:
        difference = gold_reward(row["prompt"], row["a"]) - gold_reward(row["prompt"], row["b"])
        if difference and len(found) < count:
            right = rng.random() >= NOISE
            label = "a" if (difference > 0) == right else "b"
            found.append({"prompt": row["prompt"], "a": row["a"], "b": row["b"], "label": label})
    return found


def serve_judges(run: Path, log: Path, stack: ExitStack) -> LocalServer:
    """The ensemble as `JUDGES`, and its first member as `SINGLE`, in one server."""
    command = ["-m", "services.reward", "--model", str(run / "model"), "--name", JUDGES, "--threads", "1"]
    command += ["--models", f"{SINGLE}={run / 'member-1' / 'model'}"]
    return stack.enter_context(local_server(command, log=log))


def _training(starts: Sequence[Path], demo: DemoConfig, sizes: Sizes, out: Path) -> RewardTrainConfig:
    return RewardTrainConfig(
        out=out,
        model=starts[0],
        member_models=list(starts[1:]),
        data=out.with_name("comparisons.jsonl"),
        learning_rate=1e-3,
        weight_decay=0.1,
        epochs=sizes.epochs,
        members=sizes.members,
        bootstrap=True,
        seed=demo.seed,
        threads=1,
        samples=0,
        progress=False,
        resume=True,
    )


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)
