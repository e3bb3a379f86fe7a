"""`palate collect`: collects comparisons from a policy service."""

from __future__ import annotations

import typer

from palate.exit_codes import STOPPED
from trainer.command import FORWARD, run_or_explain

app = typer.Typer(add_completion=False)


@app.command(context_settings=FORWARD, add_help_option=False)
def collect(context: typer.Context) -> None:
    """Sample pairs of completions from a policy service and have them compared."""
    from trainer.collect import CollectConfig, run_collect
    from trainer.collect.run import kept_in

    config = CollectConfig.from_command_line(context.args, prog="palate collect")
    told = run_or_explain("palate collect", lambda: run_collect(config), lambda: kept_in(config.out), STOPPED)
    print(told.summary())
