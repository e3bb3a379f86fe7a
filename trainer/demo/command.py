"""`palate demo`."""

from __future__ import annotations

import typer

app = typer.Typer(add_completion=False)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
def demo(context: typer.Context) -> None:
    """Runs the demo; `palate demo --help` lists its settings."""
    from trainer.demo.config import DemoConfig

    config = DemoConfig.from_command_line(context.args, "palate demo")

    from trainer.command import share_processors

    share_processors()
    from trainer.demo.show import main

    main(config)
