"""`palate serve`: starts one of the services in this process."""

from __future__ import annotations

import runpy
import sys

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Start a service; `palate serve reward --help`.")
_FORWARD = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


@app.command(context_settings=_FORWARD, add_help_option=False)
def reward(context: typer.Context) -> None:
    """Serve a reward model: Score, Compare, Rank, Explain."""
    _become("services.reward", context.args)


@app.command(context_settings=_FORWARD, add_help_option=False)
def policy(context: typer.Context) -> None:
    """Serve a policy: Generate, ComputeLogprobs, weight publishing; --frozen for a reference policy."""
    _become("services.policy", context.args)


def _become(module: str, arguments: list[str]) -> None:
    """Runs a service's own composition root, as `python -m` would."""
    sys.argv = [f"palate serve {module.rpartition('.')[2]}", *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
