"""`palate serve`: starts one of the services in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Start a service; `palate serve reward --help`.")
_FORWARD = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


@app.command(context_settings=_FORWARD, add_help_option=False)
def reward(context: typer.Context) -> None:
    """Serve a reward model: Score, Compare, Rank, Explain."""
    from services.reward.__main__ import main

    _become(main, "reward", context.args)


@app.command(context_settings=_FORWARD, add_help_option=False)
def policy(context: typer.Context) -> None:
    """Serve a policy: Generate, ComputeLogprobs, weight publishing; --frozen for a reference policy."""
    from services.policy.__main__ import main

    _become(main, "policy", context.args)


def _become(main: Callable[[str], None], name: str, arguments: list[str]) -> None:
    """Runs a service's own composition root, as `python -m` would."""
    prog = f"palate serve {name}"
    sys.argv = [prog, *arguments]
    main(prog)
