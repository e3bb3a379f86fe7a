"""Holds the demo to its bars, seed by seed: `python -m trainer.demo.check --seeds 0 1 2`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.table import Table

from palate.terminal import stdout_console
from trainer.command import share_processors
from trainer.demo.config import DemoConfig
from trainer.demo.results import Check, checks


def main() -> None:
    """Runs every seed; exits with 1 where a bar does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", required=True, help="Seeds to run.")
    parser.add_argument("--out", type=Path, default=Path("runs/check-demo"), help="Folder of the runs.")
    arguments = parser.parse_args()
    share_processors()
    from trainer.demo.run import run_demo

    found = {}
    for seed in arguments.seeds:
        found[seed] = checks(run_demo(DemoConfig(out=arguments.out / str(seed), seed=seed)))
    stdout_console().print(table_of(found))
    raise SystemExit(0 if all(check.holds for results in found.values() for check in results) else 1)


def table_of(found: Mapping[int, Sequence[Check]]) -> Table:
    """A row for each bar, a column for each seed; what does not hold is red."""
    table = Table("what", "bar", *(f"seed {seed}" for seed in found), title="demo")
    for row in zip(*found.values(), strict=True):
        measured = (check.measured if check.holds else f"[red]{check.measured}[/]" for check in row)
        table.add_row(row[0].name, row[0].wanted, *measured)
    return table


if __name__ == "__main__":
    main()
