"""Runs the demo for a person at a terminal: what was found, where the report is, or what went wrong."""

from __future__ import annotations

import sys

from rich.table import Table

from palate.client import PalateError
from palate.exit_codes import INTERRUPTED, STOPPED
from palate.file_errors import words_of
from palate.local_server import ServerStartError
from palate.models.folder import FolderError
from palate.terminal import stdout_console
from trainer.data.lines import DataError
from trainer.demo.biased import show as biased_show
from trainer.demo.biased.run import run_biased
from trainer.demo.config import DemoConfig
from trainer.demo.results import Results, checks
from trainer.demo.run import run_demo
from trainer.fit import FitError
from trainer.ppo.errors import TrainingError

_EXPECTED = (PalateError, ServerStartError, FolderError, DataError, FitError, TrainingError, OSError)


def main(config: DemoConfig) -> None:
    """Runs it; exits with 2 and one message where it cannot be done, with 130 on Ctrl-C."""
    try:
        _run(config)
    except KeyboardInterrupt:
        print("palate demo: stopped; every server has ended", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    except _EXPECTED as error:
        print(f"palate demo: {words_of(error)}\nServer logs are in {config.out / 'logs'}.", file=sys.stderr)
        raise SystemExit(STOPPED) from error
    print(f"report: {config.out / 'report.html'}")


def _run(config: DemoConfig) -> None:
    if config.annotators == "biased":
        biased_show.show(run_biased(config), stdout_console())
    else:
        show(run_demo(config))


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
