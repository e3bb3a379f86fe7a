"""`palate audit-policy`: what a policy says that it should not, and what of it came with its training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from palate.access import Access
from palate.audit.gauges import MetricsFile, write_metrics
from palate.audit.out import Out
from palate.audit.policy.answers import Answers, Manner, answer
from palate.audit.policy.behaviours import Behaviour, questions
from palate.audit.policy.builtin import builtin_behaviours
from palate.audit.policy.card import write_policy_card
from palate.audit.policy.findings import judge
from palate.audit.policy.metrics import PolicyAuditMetrics
from palate.audit.policy.show import PolicyAudit, Subject, as_json, print_policy_audit
from palate.client import PalateError, PolicyClient, SamplingParams
from palate.connection import Seconds, Wait, options_for, with_access
from palate.exit_codes import INTERRUPTED, NOT_GOOD, STOPPED
from palate.file_errors import words_of
from palate.local_server import ServerStartError, local_server
from palate.models.folder import FolderError
from palate.terminal import stdout_console
from palate.waiting import WAIT_SECONDS, when_ready

app = typer.Typer(add_completion=False)

_CONSOLE = Console(stderr=True, highlight=False)
_READY_SECONDS = 600.0


@app.command()
@with_access
def run(
    target: Annotated[
        str, typer.Option("--target", envvar="PALATE_TARGET", help="Address of the policy service.")
    ] = "",
    folder: Annotated[
        Path | None, typer.Option(help="Folder of a policy, instead of an address; it is served meanwhile.")
    ] = None,
    before: Annotated[str, typer.Option(help="Address of what it was before training; empty = none.")] = "",
    before_folder: Annotated[Path | None, typer.Option(help="The same as a folder.")] = None,
    behaviour: Annotated[
        list[str] | None, typer.Option(help="Look for this behaviour alone, may be given several times.")
    ] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Ask with messages: the policy has a chat template.")] = False,
    temperature: Annotated[float, typer.Option(help="Divides the logits.", min=0.01)] = 0.7,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer in tokens.", min=1)] = 128,
    seed: Annotated[int, typer.Option(help="Of all answers, the same for both policies.", min=0, max=2**31 - 1)] = 0,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where policy-audit.json and policy-audit.html go.")
    ] = Path("audit"),
    metrics: MetricsFile = None,
    timeout: Seconds = 120.0,
    wait: Wait = WAIT_SECONDS,
    *,
    access: Access,
) -> None:
    """Ask a policy 512 questions, and say what it does in its answers that it should not.

    With --before or --before-folder both policies answer the same questions with the same seeds, and what has grown is
    tested. Behaviours, rules and statistics are in docs/audit.md. A server that goes away is waited for, five minutes
    at most; one that still starts, as long as --wait says. Answers are not kept: stopped, it begins anew.

    Exit code: 0 = done, 1 = something is worse than before, 2 = stopped, or not begun, 130 = interrupted.
    """
    where = _where(target, folder, "--target (PALATE_TARGET), a server's address, or --folder, what to serve")
    earlier = _where(before, before_folder, "--before or --before-folder") if before or before_folder else None
    behaviours = _behaviours(behaviour)
    way, place = _Way(timeout, wait, access), Out(out, "policy-audit")
    manner = Manner(SamplingParams(temperature=temperature, max_new_tokens=max_new_tokens), seed, chat)
    try:
        place.check()
        once = None if earlier is None else _said(earlier, behaviours, manner, way)
        now, answers = _said(where, behaviours, manner, way)
        was, answers_before = (None, None) if once is None else once
        audit = PolicyAudit(now, was, judge(behaviours, answers, answers_before))
        print_policy_audit(audit, stdout_console())
        place.write(as_json(audit), lambda file: write_policy_card(file, audit))
        write_metrics(metrics, lambda registry: PolicyAuditMetrics(registry).found(audit))
    except KeyboardInterrupt:
        _CONSOLE.print("stopped; nothing is written")
        raise typer.Exit(INTERRUPTED) from None
    except (FolderError, PalateError, ServerStartError, OSError) as error:
        _CONSOLE.print(f"[red]stopped[/]: {escape(words_of(error))}", soft_wrap=True)
        raise typer.Exit(STOPPED) from error
    raise typer.Exit(NOT_GOOD if audit.worse else 0)


def _where(target: str, folder: Path | None, names: str) -> str | Path:
    if bool(target) == (folder is not None):
        raise typer.BadParameter(f"give either {names}")
    return target or folder  # type: ignore[return-value]  # one of both is given


def _behaviours(names: Sequence[str] | None) -> list[Behaviour]:
    known = {each.name: each for each in builtin_behaviours()}
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise typer.BadParameter(f"there is no behaviour {unknown[0]}; there are {', '.join(known)}")
    return [known[name] for name in names or known]


@dataclass(frozen=True, slots=True)
class _Way:
    """How a policy is reached: seconds of a call, seconds to wait for a server that still starts, and how to get in."""

    timeout: float
    wait: float
    access: Access


def _said(where: str | Path, behaviours: Sequence[Behaviour], manner: Manner, way: _Way) -> tuple[Subject, Answers]:
    """Who was asked, and what it said."""
    asked = questions(behaviours)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with _reached(where, way) as (policy, endpoint), Progress(*columns, console=_CONSOLE) as progress:
        info = when_ready(policy.policy_info, way.wait)
        task = progress.add_task(f"answers of {info.model}", total=len(asked))
        answers = answer(policy, asked, manner, lambda more: progress.advance(task, more))
        return Subject(info.model, info.policy_version, endpoint), answers


@contextmanager
def _reached(where: str | Path, way: _Way) -> Iterator[tuple[PolicyClient, str]]:
    """A client of the service, or of a process that serves the folder and ends with the context."""
    if isinstance(where, str):
        with PolicyClient(where, timeout=way.timeout, options=options_for(where, way.access)) as policy:
            yield policy, where
        return
    if not (where / "config.json").is_file():
        raise FolderError(
            f"{where} holds no model: there is no config.json; give the folder of a causal language model"
        )
    command = ["-m", "services.policy", "--model", str(where), "--frozen"]
    with (
        local_server(command, ready_seconds=_READY_SECONDS) as server,
        PolicyClient(server.target, timeout=way.timeout) as policy,
    ):
        yield policy, str(where)
