"""Runs the demo for a person at a terminal: what was found, where the report is, or what went wrong."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.table import Table

from palate.client import PalateError
from palate.exit_codes import INTERRUPTED, STOPPED
from palate.file_errors import words_of
from palate.local_server import ServerStartError
from palate.models.folder import FolderError
from palate.terminal import stdout_console
from trainer.data.lines import DataError
from trainer.demo.biased import show as biased_show
from trainer.demo.biased.results import checks as biased_checks
from trainer.demo.biased.run import run_biased
from trainer.demo.config import DemoConfig
from trainer.demo.results import Check, Results, checks
from trainer.demo.run import run_demo
from trainer.errors import TrainerError
from trainer.ppo.errors import TrainingError

_EXPECTED = (PalateError, ServerStartError, FolderError, TrainerError, TrainingError, OSError)

_LARGER = (
    "The demo makes its data itself, and these are too few for it: give larger --sizes (documents, base-steps and "
    "demonstrations for a policy that says something to choose from, comparisons or way-comparisons for more choices)."
)


def main(config: DemoConfig) -> None:
    """Runs it; exits with 2 and one message where it cannot be done, with 130 on Ctrl-C.

    Bars that are missed are told, and no failure: a demo is no check.
    """
    try:
        bars = _run(config)
    except KeyboardInterrupt:
        print("palate demo: stopped; every server has ended", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    except _EXPECTED as error:
        remedy = f"\n{_LARGER}" if _too_small(error) else ""
        print(f"palate demo: {words_of(error)}{remedy}\nServer logs are in {config.out / 'logs'}.", file=sys.stderr)
        raise SystemExit(STOPPED) from error
    print(f"report: {config.out / 'report.html'}\n{told_bars(bars)}")


def told_bars(bars: Sequence[Check]) -> str:
    """How many bars were missed, and which."""
    missed = [bar.name for bar in bars if not bar.holds]
    return f"{len(missed)} of {len(bars)} bars missed: {'; '.join(missed)}" if missed else f"all {len(bars)} bars hold"


def _too_small(error: BaseException) -> bool:
    """Whether there was too little data, which a demo has nobody to blame for but its sizes."""
    return isinstance(error, DataError) and not isinstance(error.__cause__, OSError)


def _run(config: DemoConfig) -> Sequence[Check]:
    """Runs and shows it; the bars."""
    if config.annotators == "biased":
        side_by_side = run_biased(config)
        biased_show.show(side_by_side, stdout_console())
        return biased_checks(side_by_side)
    results = run_demo(config)
    show(results)
    return checks(results)


def show(results: Results) -> None:
    """Bars and measures, then one sample."""
    table = Table("what", "measured", "bar", "holds", title="held-out prompt families")
    for check in checks(results):
        table.add_row(check.name, check.measured, check.wanted, "yes" if check.holds else "[red]no[/]")
    console = stdout_console()
    console.print(table)
    example = results.ideas[0]
    console.print(f"\n{example.prompt}", markup=False)
    console.print(f"  flattering {example.flattering_score:+.2f}  {example.flattering}", markup=False)
    console.print(f"  honest     {example.honest_score:+.2f}  {example.honest}\n", markup=False)
