"""Whether the KL controller mends a wrong coefficient within a run: `python -m benchmarks.adaptive_kl --json F`.

PPO on the stories of examples/stories-sentiment, from a quarter and from four times the coefficient that is right, kept
and adapted. What counts is the mean sequence KL over the last quarter of the steps.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import statistics
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.seeds import keep_rows, kept_rows, mean_and_margin, told
from palate.local_server import local_server
from palate.terminal import stdout_console
from trainer.command import share_processors
from trainer.config import PPOConfig, RecordGroup, ServicesGroup
from trainer.metrics import read_metrics
from trainer.ppo.hyperparameters import PPOGroup
from trainer.ppo.run import run_ppo

TARGET = 6.0
"""Nats a completion."""

WITHIN = 0.15
"""Of the target."""

HORIZONS = 40
"""In a run; docs/ppo.md says why."""

STARTS = (0.25, 4.0)
"""Times the coefficient that is right."""

MODES: Mapping[str, Mapping[str, float]] = {
    "fixed": {},
    "published": {"kl_target": TARGET},
    "adaptive": {"kl_target": TARGET, "kl_gain": 3.0},
}
"""What each adds to the stories' hyperparameters, the horizon apart."""

_EXAMPLE = Path(__file__).parents[1] / "examples" / "stories-sentiment" / "run.py"


@dataclass(frozen=True, slots=True)
class Row:
    """One run.

    Attributes:
        seed: Of all draws; the models are the same in every run.
        mode: A name in `MODES`.
        start: Times the right coefficient.
        kl: Mean sequence KL over the last quarter of the steps, nats.
        kls: The same of every step.
        kl_coefs: What every step was penalised with.
        score: Mean raw score over the last quarter.
    """

    seed: int
    mode: str
    start: float
    kl: float
    kls: Sequence[float]
    kl_coefs: Sequence[float]
    score: float

    @property
    def key(self) -> tuple[int, str, float]:
        """Which run it is."""
        return self.seed, self.mode, self.start


@dataclass(frozen=True, slots=True)
class _World:
    """What all runs share."""

    arguments: Namespace
    stories: ModuleType
    services: ServicesGroup


def main() -> None:
    """Runs what the file does not hold yet; exits with 1 where a way does not do what it shall."""
    arguments = _arguments()
    share_processors()
    rows = _measured(arguments)
    stdout_console().print(_table(rows))
    raise SystemExit(0 if holds(rows) else 1)


def holds(rows: Sequence[Row]) -> bool:
    """Whether adaptive runs end near the target, in the mean over seeds, and fixed ones do not, from either start."""
    found = {(mode, start): _near([row.kl for row in own]) for (mode, start), own in _by_way(rows).items()}
    return all(found.get(("adaptive", start), False) and not found.get(("fixed", start), True) for start in STARTS)


def _near(kls: Sequence[float]) -> bool:
    return abs(statistics.fmean(kls) / TARGET - 1) <= WITHIN


def _arguments() -> Namespace:
    parser = ArgumentParser(prog="python -m benchmarks.adaptive_kl", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="seeds to run")
    parser.add_argument("--json", type=Path, required=True, help="file for the figures; what is there stays")
    parser.add_argument("--data", type=Path, default=os.environ.get("PALATE_DATA"), help="folder of the stories' data")
    parser.add_argument("--stories", type=Path, default=Path("runs/stories-0"), help="folder of a run of make stories")
    parser.add_argument("--modes", nargs="+", choices=list(MODES), default=["adaptive", "fixed"], help="what to run")
    parser.add_argument("--starts", type=float, nargs="+", default=list(STARTS), help="times the right coefficient")
    parser.add_argument("--kl-coef", type=float, default=0.11, help="the coefficient that is right")
    parser.add_argument("--steps", type=int, default=60, help="batches of a run")
    parser.add_argument("--batch-size", type=int, default=32, help="rollouts a step")
    parser.add_argument("--work", type=Path, default=Path("runs/adaptive-kl"), help="folder of the runs")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("say where the stories' data are: --data, or PALATE_DATA")
    return arguments


def _measured(arguments: Namespace) -> list[Row]:
    """All rows, the file's among them; each is in the file as soon as it is found."""
    given = {name: getattr(arguments, name) for name in ("kl_coef", "steps", "batch_size")}
    settings = {**given, "modes": MODES, "horizons": HORIZONS}
    rows = [Row(**row) for row in kept_rows(arguments.json, settings)]
    wanted = [(seed, mode, start) for seed in arguments.seeds for mode in arguments.modes for start in arguments.starts]
    if missing := [key for key in wanted if key not in {row.key for row in rows}]:
        with ExitStack() as stack:
            world = _world(arguments, stack)
            for key in missing:
                rows.append(_row(world, *key))
                keep_rows(arguments.json, settings, rows)
    return rows


def _world(arguments: Namespace, stack: ExitStack) -> _World:
    """The example's code, and its three services."""
    policy, served = _policy(arguments), arguments.stories / "served"
    if not served.is_dir():
        raise SystemExit(f"{served} is missing: run `make stories DATA=...` first, or give another --stories")

    def serve(name: str, *command: str) -> str:
        log = arguments.work / "logs" / f"{name}.log"
        return stack.enter_context(local_server(("-m", *command, "--threads", "1"), log=log)).target

    return _World(
        arguments,
        _stories(),
        ServicesGroup(
            policy=[serve("policy", "services.policy", "--model", str(policy))],
            ref=serve("ref", "services.policy", "--model", str(policy), "--frozen"),
            reward=serve("reward", "services.reward", "--model", str(served)),
        ),
    )


def _policy(arguments: Namespace) -> Path:
    return Path(arguments.data) / "models" / "stories260K"


def _stories() -> ModuleType:
    """The example as a module."""
    spec = importlib.util.spec_from_file_location("stories", _EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["stories"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _row(world: _World, seed: int, mode: str, start: float) -> Row:
    Console(stderr=True).print(f"[bold]seed {seed}: {mode} from {start:g} times the right coefficient[/]")
    config = _config(world, seed, mode, start)
    shutil.rmtree(config.out, ignore_errors=True)
    run_ppo(config)
    metrics = read_metrics(config.out)
    last = metrics[-(len(metrics) // 4) :]
    return Row(
        seed=seed,
        mode=mode,
        start=start,
        kl=statistics.fmean(row["objective/kl"] for row in last),
        kls=[round(row["objective/kl"], 3) for row in metrics],
        kl_coefs=[round(row["objective/kl_coef"], 5) for row in metrics],
        score=statistics.fmean(row["objective/scores"] for row in last),
    )


def _config(world: _World, seed: int, mode: str, start: float) -> PPOConfig:
    """The stories' phase 3, shorter, with another coefficient."""
    arguments = world.arguments
    base: PPOConfig = world.stories.ppo_config(
        world.stories.StoriesConfig(
            data=arguments.data,
            out=arguments.work / f"{seed}-{mode}-{start:g}",
            seed=seed,
            steps=arguments.steps,
            batch_size=arguments.batch_size,
            kl_coef=start * arguments.kl_coef,
        ),
        _policy(arguments),
        arguments.stories / "data" / "prompts.jsonl",
        world.services,
    )
    steered = {**MODES[mode], **_horizon(arguments, mode), "microbatch_size": arguments.batch_size}
    changed: dict[str, Any] = {
        "ppo": PPOGroup(**{**dict(base.ppo), **steered}),
        "record": RecordGroup(**{**dict(base.record), "progress": False}),
    }
    return PPOConfig(**{**dict(base), **changed})


def _horizon(arguments: Namespace, mode: str) -> Mapping[str, float]:
    return {} if mode == "fixed" else {"kl_horizon": arguments.steps * arguments.batch_size / HORIZONS}


def _by_way(rows: Sequence[Row]) -> Mapping[tuple[str, float], list[Row]]:
    ways = sorted({(row.mode, row.start) for row in rows})
    return {way: [row for row in rows if (row.mode, row.start) == way] for way in ways}


def _table(rows: Sequence[Row]) -> Table:
    seeds = sorted({row.seed for row in rows})
    title = f"mean sequence KL of the last quarter, nats; target {TARGET:g}"
    table = Table("coefficient", "start", *(f"seed {seed}" for seed in seeds), "mean", "off by", title=title)
    for (mode, start), own in _by_way(rows).items():
        found = {row.seed: row.kl for row in own}
        cells = [f"{found[seed]:.2f}" if seed in found else "" for seed in seeds]
        mean, _ = mean_and_margin(list(found.values()))
        table.add_row(mode, f"× {start:g}", *cells, told(list(found.values())), f"{mean / TARGET - 1:+.0%}")
    return table


if __name__ == "__main__":
    main()
