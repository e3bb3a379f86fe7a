"""What measurements found, as a document and as a table."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.paired import Timed, ratio

_VERSIONS = ("palate", "torch", "transformers", "onnxruntime", "grpcio")


@dataclass(frozen=True, slots=True)
class Machine:
    """Where figures come from; `load_before` is the number of busy processes when measuring began."""

    platform: str
    python: str
    cores: int
    load_before: float
    omp_wait_policy: str
    versions: dict[str, str]


@dataclass(frozen=True, slots=True)
class Result:
    """What one measurement found."""

    title: str
    baseline: str
    candidate: str
    timed: Timed


def this_machine() -> Machine:
    """As it is now."""
    return Machine(
        platform=platform.platform(),
        python=platform.python_version(),
        cores=os.cpu_count() or 0,
        load_before=round(os.getloadavg()[0], 2),
        omp_wait_policy=os.environ.get("OMP_WAIT_POLICY", ""),
        versions={name: version(name) for name in _VERSIONS},
    )


def write(file: Path, machine: Machine, results: Sequence[Result]) -> None:
    """Everything, with the seconds of every round, as JSON."""
    found = [{**asdict(result), "times_as_fast": asdict(ratio(result.timed))} for result in results]
    document = {"machine": asdict(machine), "results": found}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def show(machine: Machine, results: Sequence[Result]) -> None:
    """A row for each: median seconds of both ways, and how many times as fast the second one is."""
    table = Table("what", "baseline", "candidate", "times as fast", show_lines=True)
    table.title = f"{machine.cores} cores, load {machine.load_before:.1f} before; medians, lowest to highest of a round"
    for result in results:
        found = ratio(result.timed)
        times = f"[bold]{found.value:.2f}[/]\n{found.lowest:.2f} to {found.highest:.2f}"
        ways = ((result.baseline, result.timed.baseline), (result.candidate, result.timed.candidate))
        table.add_row(result.title, *(f"{name}\n{statistics.median(seconds):.2f} s" for name, seconds in ways), times)
    Console(highlight=False).print(table)
