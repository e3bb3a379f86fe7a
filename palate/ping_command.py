"""`palate ping`: is a server there, is it ready, and what does it serve?"""

from __future__ import annotations

import typer
from rich.markup import escape

from palate.access import Access
from palate.client import CallError, ChannelOptions, PalateError, PolicyClient, RewardClient
from palate.connection import Seconds, Target, options_for, with_access
from palate.exit_codes import NOT_GOOD, STOPPED
from palate.health import ask_health
from palate.terminal import stdout_console

app = typer.Typer(add_completion=False)

_NAMES = ("live", "palate.v1.RewardService", "palate.v1.PolicyService")


@app.command()
@with_access
def ping(
    target: Target,
    timeout: Seconds = 5.0,
    *,
    access: Access,
) -> None:
    """Ask a server how it is and what it serves.

    The exit code is 0 when it takes calls, 1 when it does not, 2 when nobody answers.
    """
    console = stdout_console()
    options = options_for(target, access)
    try:
        health, milliseconds = ask_health(target, options, _NAMES, timeout)
    except PalateError as error:
        console.print(f"[red]{escape(str(error))}[/]", soft_wrap=True)
        raise typer.Exit(STOPPED) from error
    answers = [("round trip", f"{milliseconds:.1f} ms"), *health.items(), *_served(target, options, health, timeout)]
    width = max(len(name) for name, _ in answers)
    for name, value in answers:  # one line each, never cut: a revision is there to be copied
        console.print(f"{name:<{width}}  {escape(value)}", soft_wrap=True)
    if "SERVING" not in {status for name, status in health.items() if name != "live"}:
        raise typer.Exit(NOT_GOOD)


def _served(target: str, options: ChannelOptions, health: dict[str, str], timeout: float) -> list[tuple[str, str]]:
    """Names of what is loaded, or why they cannot be had."""
    try:
        if health.get("palate.v1.RewardService") == "SERVING":
            with RewardClient(target, timeout=timeout, options=options) as reward:
                info = reward.model_info()
            made = f"{info.provenance.engine} {info.provenance.dtype}, {info.kind}, at most {info.max_tokens} tokens"
            return [("reward model", f"{info.provenance.model} ({made})"), ("revision", info.provenance.revision)]
        if health.get("palate.v1.PolicyService") == "SERVING":
            with PolicyClient(target, timeout=timeout, options=options) as policy:
                served = policy.policy_info()
            version = served.policy_version
            return [
                ("policy", f"{served.model} ({served.engine} {served.dtype}, at most {served.max_tokens} tokens)"),
                ("run", f"{version.run_id or 'none'}, incarnation {version.incarnation}, step {version.step}"),
                ("digest", version.digest),
            ]
    except CallError as error:
        return [("what is loaded", f"not told: {error}")]
    return []
