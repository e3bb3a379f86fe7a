"""A single reward model over-optimises, an ensemble less: `python -m benchmarks.overoptimisation --json F`.

Labels of which a quarter is wrong, in the simulated world. Best of n (cheap) and PPO, for one member alone and for the
ensemble's mean, minimum and mean minus variance; gold is known and never learnt from. What was stopped goes on.
"""

from __future__ import annotations

import hashlib
import json
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from benchmarks.estimators import is_prepared, prepare
from benchmarks.overoptimisation.best_of_n import BestOfN, best_of_n_rows
from benchmarks.overoptimisation.page import write_curves
from benchmarks.overoptimisation.ppo import KL_COEF, Judged, PPORow, ppo_row
from benchmarks.overoptimisation.table import table
from benchmarks.overoptimisation.world import NOISE, OBJECTIVES, QUICK, VARIANCE_WEIGHT, Sizes
from benchmarks.seeds import keep_rows, kept_rows
from trainer.command import share_processors
from trainer.demo import phases
from trainer.demo.config import DemoConfig

RowT = TypeVar("RowT", BestOfN, PPORow)


def main() -> None:
    """Runs what is asked for on every seed, writes figures and curves, and says what they are."""
    arguments = _arguments()
    share_processors()
    console = Console(width=150)
    for part in arguments.only:
        rows = _best_of_n(arguments) if part == "bon" else _ppo(arguments)
        console.print(table(part, rows))
        print(f"curves: {write_curves(_file(arguments, part).with_suffix('.html'), part, rows)}")


def _best_of_n(arguments: Namespace) -> list[BestOfN]:
    """All rows, the file's among them."""
    weight = arguments.variance_weight
    file, settings = _file(arguments, "bon"), {**_settings(arguments), "variance_weight": weight}
    rows = [BestOfN(**row) for row in kept_rows(file, settings)]
    for seed in arguments.seeds:
        if seed not in {row.seed for row in rows}:
            rows += best_of_n_rows(_world(arguments, seed), arguments.sizes, weight, _folder(arguments, seed))
            keep_rows(file, settings, rows)
    return rows


def _ppo(arguments: Namespace) -> list[PPORow]:
    pressure = {"variance_weight": arguments.variance_weight, "kl_coef": arguments.kl_coef}
    file, settings = _file(arguments, "ppo"), _settings(arguments) | pressure
    rows = [PPORow(**row) for row in kept_rows(file, settings)]
    for seed in arguments.seeds:
        for objective in OBJECTIVES:
            if (seed, objective) not in {(row.seed, row.objective) for row in rows}:
                world = _world(arguments, seed)
                judged = Judged(arguments.sizes, objective, **pressure)
                rows.append(ppo_row(world, judged, _folder(arguments, seed)))
                keep_rows(file, settings, rows)
    return rows


def _world(arguments: Namespace, seed: int) -> DemoConfig:
    """Base model, SFT policy and sampled pairs of a seed, made once; shared with `benchmarks.estimators`."""
    demo = DemoConfig(out=arguments.work / str(seed), seed=seed, progress=False)
    if not is_prepared(demo):
        with ExitStack() as stack:
            prepare(demo, phases.Paths(demo.out), stack)
    return demo


def _folder(arguments: Namespace, seed: int) -> Path:
    """Where a seed's work stays; other sizes have another."""
    digest = hashlib.sha256(json.dumps(_settings(arguments), sort_keys=True).encode()).hexdigest()
    folder: Path = arguments.work / f"overoptimisation-{seed}-{digest[:8]}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _file(arguments: Namespace, part: str) -> Path:
    file: Path = arguments.json
    return file.with_name(f"{file.stem}-{part}.json")


def _settings(arguments: Namespace) -> dict[str, object]:
    """What decides what the members are."""
    return {"noise": NOISE, **asdict(arguments.sizes)}


def _arguments(argv: Sequence[str] | None = None) -> Namespace:
    parser = ArgumentParser(
        prog="python -m benchmarks.overoptimisation", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="seeds to run")
    parser.add_argument("--json", type=Path, required=True, help="figures go to FILE-bon.json and FILE-ppo.json")
    parser.add_argument("--only", nargs="+", choices=("bon", "ppo"), default=["bon", "ppo"], help="some parts")
    parser.add_argument(
        "--variance-weight", type=float, default=VARIANCE_WEIGHT, help="λ of the mean minus λ times the variance"
    )
    parser.add_argument("--kl-coef", type=float, default=KL_COEF, help="weight of PPO's KL penalty")
    parser.add_argument("--work", type=Path, default=Path("runs/estimators"), help="folder that stays, with the models")
    parser.add_argument("--quick", action="store_true", help="the smallest sizes: shows that it runs, says nothing")
    parser.add_argument("--sizes", type=json.loads, default={}, help='JSON, e.g. {"samples": 512}')
    arguments = parser.parse_args(argv)
    try:
        arguments.sizes = Sizes(**(asdict(QUICK if arguments.quick else Sizes()) | arguments.sizes))
    except (TypeError, ValueError) as error:
        parser.error(f"--sizes: {error}")
    return arguments


if __name__ == "__main__":
    main()
