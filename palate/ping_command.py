"""`palate ping`: is a server there, is it ready, and what does it serve?"""

from __future__ import annotations

import time
from typing import Any

import grpc
import typer
from rich.markup import escape

from palate.access import Access
from palate.client import CallError, ChannelOptions, PalateError, PolicyClient, RewardClient
from palate.client.channel import call_metadata, errors_of, open_channel
from palate.connection import Seconds, Target, options_for, with_access
from palate.terminal import stdout_console

app = typer.Typer(add_completion=False)

_HEALTH_SERVICE = "grpc.health.v1.Health"
_HEALTH = {b"\x08\x01": "SERVING", b"\x08\x02": "NOT_SERVING"}
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
        health, milliseconds = _health(target, options, timeout)
    except PalateError as error:
        console.print(f"[red]{escape(str(error))}[/]", soft_wrap=True)
        raise typer.Exit(2) from error
    answers = [("round trip", f"{milliseconds:.1f} ms"), *health.items(), *_served(target, options, health, timeout)]
    width = max(len(name) for name, _ in answers)
    for name, value in answers:  # one line each, never cut: a revision is there to be copied
        console.print(f"{name:<{width}}  {escape(value)}", soft_wrap=True)
    if "SERVING" not in {status for name, status in health.items() if name != "live"}:
        raise typer.Exit(1)


def _health(target: str, options: ChannelOptions, timeout: float) -> tuple[dict[str, str], float]:
    """Status of every service the server knows, and the time of one question."""
    found: dict[str, str] = {}
    with open_channel(target, options) as channel, errors_of(target, _HEALTH_SERVICE):
        check: Any = channel.unary_unary(f"/{_HEALTH_SERVICE}/Check")
        metadata = call_metadata(options)
        for name in _NAMES:
            begin = time.perf_counter()
            try:
                answer = check(_request(name), timeout=timeout, metadata=metadata)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.NOT_FOUND:
                    raise
                continue
            found[name] = _HEALTH.get(answer, "UNKNOWN")
    return found, (time.perf_counter() - begin) * 1000


def _request(service: str) -> bytes:
    """`HealthCheckRequest(service=...)`, which is one short string field: its stubs are not among our dependencies."""
    return b"\x0a" + bytes([len(service)]) + service.encode()


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
