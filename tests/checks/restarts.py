"""Kills and restarts both services under a run, and looks at what it recorded: `python -m tests.checks.restarts`.

The run must end; no rollout may count twice, come from other weights than its step's, or have another score than the
reward model gives. In strict mode everything must be as in an undisturbed run, to the bit.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from palate.client import RewardClient
from palate.rollout_files import read_rollouts
from tests.checks.service import Service
from tests.checks.small_run import BATCH, World, log_of, make_world, outcome, trainer
from tests.json_lines import read_rows
from trainer.command import share_processors

STEPS = 24
_SECONDS = 1800.0
"""A run that has not ended by then hangs."""

_BREATH = (0.3, 2.5)
"""Seconds between a restart and the next kill, at least and at most."""

_TOLERANCE = 1e-4
"""Mean difference of recomputed and recorded logprobs, as the run itself is held to."""


@contextmanager
def started(world: World) -> Iterator[tuple[Service, ...]]:
    """Two policy replicas and a reward service."""
    commands = {
        "policy a": world.policy_command(),
        "policy b": world.policy_command(),
        "reward": world.reward_command(),
    }
    with ExitStack() as stack:
        services = []
        for name, command in commands.items():
            service = Service(name, command, world.out / "logs" / f"{name.replace(' ', '-')}.log")
            stack.callback(service.close)
            services.append(service)
        yield tuple(services)


def disturb(process: subprocess.Popen[bytes], begun: Path, services: Sequence[Service], chance: random.Random) -> None:
    """Kills services, one or two at a time, and restarts them until the trainer ends.

    Raises:
        TimeoutError: It does not end.
    """
    deadline = time.monotonic() + _SECONDS
    while process.poll() is None:
        if time.monotonic() > deadline:
            process.kill()
            raise TimeoutError(f"the run did not end within {_SECONDS:g} s")
        time.sleep(chance.uniform(*_BREATH))
        if begun.exists() and begun.stat().st_size > 0 and process.poll() is None:
            victims = chance.sample(services, chance.choice((1, 1, 2)))
            for service in victims:
                service.kill()
            for service in victims:
                service.restart()


def run(
    world: World, name: str, services: Sequence[Service], flags: Sequence[str], chance: random.Random | None
) -> None:
    """One run, disturbed where there is a `chance`.

    Raises:
        RuntimeError: It fails; with the end of its log.
    """
    process = trainer(world, name, [service.target for service in services], *flags, steps=STEPS)
    try:
        if chance is not None:
            disturb(process, world.out / name / "metrics.jsonl", services, chance)
        failed = process.wait(_SECONDS)
    finally:
        process.kill()
    if failed:
        raise RuntimeError(f"run {name} failed:\n{log_of(world, name)}")


def findings(out: Path, reward: str) -> dict[str, str]:
    """What is wrong with what a run has recorded, by what it was asked; empty where all is well."""
    rollouts, metrics = list(read_rollouts(out)), read_rows(out / "metrics.jsonl")
    again = _scores(rollouts, reward)
    questions: Mapping[str, list[Any]] = {
        "steps without a full batch": [step for step, count in _per_step(rollouts, STEPS).items() if count != BATCH],
        "steps recorded twice": [step for step, count in Counter(row["step"] for row in metrics).items() if count > 1],
        "draws counted twice": [
            draw for draw, count in Counter((row["step"], row["seed"]) for row in rollouts).items() if count > 1
        ],
        "rollouts of other weights than their step's": _of_other_weights(rollouts),
        "steps whose logprobs do not fit the weights": [
            row["step"] for row in metrics if row["policy/behaviour_deviation"] > _TOLERANCE
        ],
        "scores that the reward model does not give": [
            row["step"] for row, score in zip(rollouts, again, strict=True) if row["score"] != score
        ],
        "reward model revisions beyond one": sorted({row["reward_revision"] for row in rollouts})[1:],
    }
    return {question: str(found) for question, found in questions.items() if found}


def _per_step(rollouts: Sequence[dict[str, Any]], steps: int) -> dict[int, int]:
    counts = Counter(row["step"] for row in rollouts)
    return {step: counts[step] for step in {*counts, *range(1, steps + 1)}}


def _of_other_weights(rollouts: Sequence[dict[str, Any]]) -> list[int]:
    """Steps of rollouts that were not drawn from the one version published for their step."""
    digests: dict[int, str] = {}
    wrong = []
    for row in rollouts:
        version = row["policy_version"]
        digest = digests.setdefault(row["step"], version["digest"])
        if version["step"] != row["step"] - 1 or version["incarnation"] != 1 or version["digest"] != digest:
            wrong.append(row["step"])
    return wrong if len(set(digests.values())) == len(digests) else [*wrong, -1]


def _scores(rollouts: Sequence[dict[str, Any]], reward: str) -> list[float]:
    """What the reward service says of the same texts now."""
    with RewardClient(reward, timeout=120) as client:
        found: list[float] = []
        for start in range(0, len(rollouts), 64):
            some = rollouts[start : start + 64]
            found += client.score([r["prompt"] for r in some], [r["completion"] for r in some]).scores()
    return found


def main() -> None:
    """Exits with 1 where something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="decides which service is killed when")
    given = parser.parse_args()
    share_processors()
    chance = random.Random(given.seed)
    table = Table("run", "kills", "wrong", title="both services killed and restarted under a run")
    sound = True
    with tempfile.TemporaryDirectory(prefix="palate-check-") as folder:
        world = make_world(Path(folder))
        with started(world) as services:
            run(world, "whole", services, ["--strict"], None)
            for name, flags in (("strict", ["--strict"]), ("usual", ["--services.attempts", "60"])):
                before = {service.name: service.kills for service in services}
                run(world, name, services, flags, chance)
                wrong = findings(world.out / name, services[-1].target)
                if name == "strict":
                    whole, got = outcome(world.out / "whole"), outcome(world.out / name)
                    wrong |= {f"{what} unlike the undisturbed run": "" for what in whole if whole[what] != got[what]}
                kills = {service.name: service.kills - before[service.name] for service in services}
                if sum(kills.values()) == 0:
                    wrong["nothing was killed"] = "the run ended before"
                told = ", ".join(f"{count} × {service}" for service, count in kills.items())
                table.add_row(name, told, "\n".join(f"{q}: {a}" for q, a in wrong.items()) or "nothing")
                sound &= not wrong
                print(f"{name}: {told} killed; wrong: {'; '.join(wrong) or 'nothing'}", flush=True)
    Console(width=120).print(table)
    sys.exit(0 if sound else 1)


if __name__ == "__main__":
    main()
