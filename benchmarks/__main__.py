"""Runs every measurement, shows what came out, and writes it down; started by `make bench`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from pydantic import Field
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from transformers.utils import logging as hf_logging

from benchmarks.generating import generating
from benchmarks.paired import Disagreement, Measurement, take_turns
from benchmarks.results import Result, show, this_machine, write
from benchmarks.scoring import scoring
from palate.client import PalateError
from palate.local_server import ServerStartError
from palate.settings import Settings

_PARTS = (scoring, generating)


class BenchConfig(Settings):
    """Times ways of doing the same work against each other, in turns, through real servers on this machine."""

    rounds: int = Field(default=5, ge=1, description="How many times each way is timed.")
    out: Path = Field(default=Path("runs/bench"), description="Folder for results.json and the servers' logs.")


def main() -> None:
    """Exits with 1 and one message where a server does not start or two ways disagree, with 130 on Ctrl-C."""
    config = BenchConfig.from_command_line(sys.argv[1:], "bench")
    hf_logging.disable_progress_bar()
    machine, file = this_machine(), config.out / "results.json"
    try:
        results = measure_all(config)
        write(file, machine, results)
    except KeyboardInterrupt:
        print("bench: stopped; every server has ended", file=sys.stderr)
        raise SystemExit(130) from None
    except (Disagreement, ServerStartError, PalateError, OSError) as error:
        print(f"bench: {error}\nServer logs are in {config.out / 'logs'}.", file=sys.stderr)
        raise SystemExit(1) from error
    show(machine, results)
    print(file)


def measure_all(config: BenchConfig) -> list[Result]:
    """One part after the other, each with servers of its own."""
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="palate-bench-") as folder:
        for part in _PARTS:
            with part(Path(folder), config.out / "logs") as measurements:
                results.extend(_measured(measurement, config.rounds) for measurement in measurements)
    return results


def _measured(measurement: Measurement[Any, Any], rounds: int) -> Result:
    title = f"{measurement.title}: {measurement.candidate.name}"
    columns = (TextColumn("{task.description:<44}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=rounds)
        timed = take_turns(measurement, rounds, after_round=lambda: progress.advance(task))
    return Result(measurement.title, measurement.baseline.name, measurement.candidate.name, timed)


if __name__ == "__main__":
    main()
