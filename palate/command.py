"""The `palate` command: finds its subcommands through entry points, so that each package brings its own."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import typer

from palate.exit_codes import STOPPED

GROUP = "palate.commands"

_PURPOSE = {
    "audit": ("Say what a reward model likes that it should not: length, flattery, hedges, refusals ...", "audit"),
    "audit-policy": ("Say what a policy says that it should not, and what of it came with its training.", "audit"),
    "best-of-n": ("Say what a reward model's favourites among n completions are worth to gold.", "train"),
    "collect": ("Collect comparisons: sample pairs from a policy service and have them labelled.", "train"),
    "demo": ("Run all three phases of RLHF through real services, from nothing.", "train"),
    "doctor": ("Say what is wrong with running services, every replica of them, and what to do.", ""),
    "ensemble": ("Make several reward models one folder that is served under one name.", "serve"),
    "export": ("Make a served folder (palate.json, ONNX) from a Hugging Face classifier.", "train"),
    "models": ("See and change the models of a reward server while it serves.", ""),
    "ping": ("Ask a server how it is and what it serves.", ""),
    "plan": ("Say how long a PPO run takes, and how many replicas and ranks it wants.", "train"),
    "rank": ("Rank the completions of every row of a file.", ""),
    "rescore": ("Score a run's stored rollouts by another reward model, and compare.", "train"),
    "score": ("Score every row of a file.", ""),
    "serve": ("Start a reward service or a policy service.", "serve"),
    "train": ("Train: pretrain, sft, reward, ppo.", "train"),
    "verify": ("Prove that a folder's scores are the same in every engine, and by every way.", "serve"),
}
"""What each subcommand is for, and the extra that brings it; known without importing it."""


def main() -> None:
    """Runs the subcommand that the first argument names; imports only that one."""
    arguments = sys.argv[1:]
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        raise SystemExit(0 if arguments else STOPPED)
    name = arguments[0]
    if name not in found:
        print(f"palate: there is no command {name!r}\n\n{_help()}", file=sys.stderr)
        raise SystemExit(STOPPED)
    _run(_loaded(found[name]), name, arguments[1:])


def _run(app: Any, name: str, arguments: list[str]) -> None:
    typer.main.get_command(app).main(args=arguments, prog_name=f"palate {name}")


def _loaded(entry: EntryPoint) -> Any:
    """The command behind an entry point, or an exit that says what to install."""
    try:
        return entry.load()
    except ImportError as error:
        extra = _PURPOSE[entry.name][1]
        print(
            f"palate {entry.name}: {error}.\nThis command needs `pip install 'palate[{extra}]'`"
            + ("" if entry.value.startswith("palate") else " and a checkout of the repository (`pip install -e .`)"),
            file=sys.stderr,
        )
        raise SystemExit(STOPPED) from error


def _help() -> str:
    commands = "\n".join(f"  {name:<12}  {purpose}" for name, (purpose, _) in sorted(_PURPOSE.items()))
    return f"""usage: palate COMMAND ...

Reward models served, trained and audited, and policies trained against them.

commands:
{commands}

`palate COMMAND --help` explains each."""
