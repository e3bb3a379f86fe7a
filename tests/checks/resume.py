"""Kills a strict run at every kind of moment, resumes it, and asks for the same bits: `python -m tests.checks.resume`.

The trainer stops itself at a named point (`trainer.ppo.points`); seen stopped there, it gets SIGKILL. Several kills
may meet the same run before it ends, as they would in life.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.checks.small_run import BATCH, STEPS, World, log_file, log_of, make_world, outcome, services, trainer
from trainer.command import share_processors
from trainer.ppo.points import POINTS, VARIABLE, standing

_A_STEP = {"stage": 2, "minibatch": 4, "rollout": BATCH}
"""How often a step passes a point at least, where that is not once."""

_SECONDS = 1200.0
"""A trainer that neither stops nor ends by then hangs."""


@dataclass(frozen=True, slots=True)
class Kill:
    """Where a run is killed: the point, and which time it is passed since the process started."""

    point: str
    time: int

    def __str__(self) -> str:
        return f"{self.point}:{self.time}"


@dataclass(frozen=True, slots=True)
class Row:
    """What became of a run."""

    kills: Sequence[Kill]
    hit: Sequence[bool]
    unlike: Sequence[str]
    seconds: float

    @property
    def good(self) -> bool:
        """Whether every point was hit, and everything is as in the uninterrupted run."""
        return all(self.hit) and not self.unlike

    @property
    def told(self) -> str:
        """What became of it in words."""
        missed = [str(kill) for kill, hit in zip(self.kills, self.hit, strict=True) if not hit]
        wrong = [f"other {what}" for what in self.unlike] + [f"never came to {kill}" for kill in missed]
        return ", ".join(wrong) or "the same bits"


def draw_kills(count: int, per_run: int, seed: int) -> list[list[Kill]]:
    """`count` places to kill at, for one run after the other; every point comes once before any comes twice."""
    chance = random.Random(seed)
    points = [point for _ in range(-(-count // len(POINTS))) for point in chance.sample(POINTS, len(POINTS))][:count]
    runs = [points[start : start + per_run] for start in range(0, count, per_run)]
    return [[_drawn(point, per_run, chance) for point in sorted(run, key="model".__eq__)] for run in runs]


def _drawn(point: str, per_run: int, chance: random.Random) -> Kill:
    """One that leaves enough steps for the other kills of its run."""
    most = 1 if point == "model" else _A_STEP.get(point, 1) * (STEPS // per_run)
    return Kill(point, chance.randint(1, most))


def ended(process_id: int) -> int:
    """Waits until a child stops or ends; its wait status.

    Raises:
        TimeoutError: It does neither.
    """
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        found, status = os.waitpid(process_id, os.WUNTRACED | os.WNOHANG)
        if found:
            return status
        time.sleep(0.02)
    os.kill(process_id, signal.SIGKILL)
    raise TimeoutError(f"the trainer did not come to its point, and did not end, within {_SECONDS:g} s")


def stands_still(process: subprocess.Popen[bytes], place: str, log: Path) -> bool:
    """Waits until a trainer stands still at `place`; False where it has ended before.

    Args:
        process: The trainer.
        place: Which point, and which time it is passed.
        log: Gets its standard error.
    """
    while os.WIFSTOPPED(status := ended(process.pid)):
        if standing(place) in log.read_text(errors="replace"):
            return True  # else somebody else has stopped it, and will let it go on
    process.returncode = os.waitstatus_to_exitcode(status)
    return False


def kill_at(world: World, name: str, targets: Sequence[str], kill: Kill) -> bool:
    """Starts or resumes a run and kills it there; whether it was seen to stand there.

    Raises:
        RuntimeError: It fails before; with the end of its log.
    """
    process = trainer(world, name, targets, "--strict", environment={VARIABLE: str(kill)})
    if stands_still(process, str(kill), log_file(world, name)):
        process.kill()
        return process.wait() == -signal.SIGKILL
    if process.returncode:
        raise RuntimeError(f"run {name} failed before {kill}:\n{log_of(world, name)}")
    return False


def finish(world: World, name: str, targets: Sequence[str]) -> None:
    """Starts or resumes a run and lets it end.

    Raises:
        RuntimeError: It fails; with the end of its log.
    """
    process = trainer(world, name, targets, "--strict")
    try:
        failed = process.wait(_SECONDS)
    finally:
        process.kill()
    if failed:
        raise RuntimeError(f"run {name} failed:\n{log_of(world, name)}")


def check(world: World, targets: Sequence[str], runs: Sequence[Sequence[Kill]]) -> list[Row]:
    """The uninterrupted run, then the killed ones."""
    finish(world, "whole", targets)
    whole = outcome(world.out / "whole")
    found = []
    for number, kills in enumerate(runs):
        name, begin = f"killed-{number}", time.monotonic()
        hit = [kill_at(world, name, targets, kill) for kill in kills]
        finish(world, name, targets)
        got = outcome(world.out / name)
        unlike = [what for what, digest in whole.items() if got[what] != digest]
        found.append(Row(kills, hit, unlike, time.monotonic() - begin))
        print(f"{name}: {', '.join(map(str, kills))}: {found[-1].told}", flush=True)
    return found


def show(found: Sequence[Row], whole: str) -> None:
    """A row for each run."""
    table = Table("killed at", "hit", "as the uninterrupted run", "s", title=f"weights {whole[:12]}", show_lines=True)
    for row in found:
        table.add_row(
            "\n".join(map(str, row.kills)),
            "\n".join("yes" if hit else "NO" for hit in row.hit),
            row.told,
            f"{row.seconds:.0f}",
        )
    Console(width=110).print(table)
    kills, hit = sum(len(row.kills) for row in found), sum(sum(row.hit) for row in found)
    print(f"{hit} of {kills} kills hit their point; {sum(row.good for row in found)} of {len(found)} runs are the same")


def main() -> None:
    """Exits with 1 where a point was not hit or a run is not the same."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="how many kills")
    parser.add_argument("--per-run", type=int, default=2, help="kills that one run meets before it may end")
    parser.add_argument("--seed", type=int, default=0, help="decides where")
    given = parser.parse_args()
    share_processors()
    with tempfile.TemporaryDirectory(prefix="palate-check-") as folder:
        world = make_world(Path(folder))
        with services(world) as servers:
            targets = [server.target for server in servers]
            found = check(world, targets, draw_kills(given.kills, given.per_run, given.seed))
        show(found, outcome(world.out / "whole")["weights"])
    sys.exit(0 if all(row.good for row in found) else 1)


if __name__ == "__main__":
    main()
