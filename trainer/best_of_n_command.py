"""`palate best-of-n`: proxy and gold of the best of n, on prompts of one's own."""

from __future__ import annotations

import typer

from palate.exit_codes import SOME_FAILED, STOPPED
from trainer.command import FORWARD, run_or_explain

app = typer.Typer(add_completion=False)


@app.command(context_settings=FORWARD, add_help_option=False)
def best_of_n(context: typer.Context) -> None:
    """Say what a reward model's favourites among n completions are worth to something that knows better."""
    from palate.terminal import stdout_console
    from trainer.best_of_n import BestOfNConfig, run_best_of_n
    from trainer.best_of_n.report import HTML_FILE, print_report

    config = BestOfNConfig.from_command_line(context.args, prog="palate best-of-n")
    kept = f"{config.out} keeps what was drawn and scored: the same command goes on from there"
    report = run_or_explain("palate best-of-n", lambda: run_best_of_n(config), lambda: kept, STOPPED)
    print_report(report, stdout_console())
    print(f"curves: {config.out / HTML_FILE}")
    raise typer.Exit(SOME_FAILED if report.findings.excluded else 0)
