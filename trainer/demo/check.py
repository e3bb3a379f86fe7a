"""Holds the demo to its bars, seed by seed: `python -m trainer.demo.check --seeds 0 1 2`."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.table import Table

from palate.terminal import stdout_console
from trainer.command import share_processors
from trainer.demo.config import DemoConfig
from trainer.demo.results import checks


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
    table = Table("what", "bar", *(f"seed {seed}" for seed in found), title="demo")
    for index, check in enumerate(next(iter(found.values()))):
        row = [results[index] for results in found.values()]
        table.add_row(check.name, check.wanted, *(c.measured if c.holds else f"[red]{c.measured}[/]" for c in row))
    stdout_console().print(table)
    raise SystemExit(0 if all(check.holds for results in found.values() for check in results) else 1)


if __name__ == "__main__":
    main()
