"""`palate audit`: what a reward model likes that it should not, as a table, a card, and an exit code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from palate.access import Access
from palate.audit.ask import Answers, ask, in_turn
from palate.audit.card import write_card
from palate.audit.findings import judge
from palate.audit.gate import Policy, breaches, check_names, read_policy
from palate.audit.gauges import MetricsFile, write_metrics
from palate.audit.items import Probe
from palate.audit.metrics import AuditMetrics
from palate.audit.out import AuditScores, Out
from palate.audit.probes import builtin_probes
from palate.audit.scorer import Scorer
from palate.audit.sets import read_set
from palate.audit.show import Audit, as_json, print_audit
from palate.audit.subject import Protocol, Server, Way, opened
from palate.bulk.commands import MESSAGE_BYTES, MessageBytes, Model
from palate.bulk.revision import ModelChanged
from palate.bulk.rows import FileProblem
from palate.client import ChannelOptions, PalateError
from palate.connection import Seconds, Wait, options_for, with_access
from palate.exit_codes import INTERRUPTED, NOT_GOOD, STOPPED
from palate.file_errors import words_of
from palate.local_server import ServerStartError
from palate.models.folder import FolderError
from palate.oip.client import Tensors
from palate.terminal import stdout_console
from palate.waiting import WAIT_SECONDS, say_waiting

app = typer.Typer(add_completion=False)

_CONSOLE = Console(stderr=True, highlight=False)
_LIMIT = 1000


@app.command()
@with_access
def run(
    target: Annotated[
        str, typer.Option("--target", envvar="PALATE_TARGET", help="Address of a running server, e.g. 127.0.0.1:50051.")
    ] = "",
    folder: Annotated[
        Path | None, typer.Option(help="Folder of a reward model, instead of an address; it is served meanwhile.")
    ] = None,
    protocol: Annotated[
        Protocol, typer.Option(help="How the server is spoken with: palate.v1, or Open Inference Protocol v2.")
    ] = Protocol.PALATE,
    model: Model = "",
    revision: Annotated[str, typer.Option(help="Revision to insist on, whole; empty = what is served now.")] = "",
    tensors: Annotated[
        str | None,
        typer.Option(
            help="With oip: names of the prompt's, the completion's and the score's tensor.",
            show_default="PROMPT,RESPONSE,REWARD",
        ),
    ] = None,
    probe: Annotated[
        list[str] | None, typer.Option(help="Ask this built-in probe alone, may be given several times; none = no one.")
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="A set to ask too (docs/audit.md), may be given several times."),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(help="With --data: most items of each probe of a set.", min=1, show_default=f"{_LIMIT}"),
    ] = None,
    gate: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Policy, YAML; default: whatever is flagged fails.")
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where audit.json and audit.html go, and scores are kept.")
    ] = Path("audit"),
    metrics: MetricsFile = None,
    batch: Annotated[int, typer.Option(help="Texts in one request; the server's own limit holds too.", min=1)] = 32,
    timeout: Seconds = 60.0,
    wait: Wait = WAIT_SECONDS,
    max_message_bytes: MessageBytes = MESSAGE_BYTES,
    *,
    access: Access,
) -> None:
    """Ask a reward model minimal pairs, and say what it likes that it should not.

    Probes, statistics, sets and policies are in docs/audit.md. Scores are kept in OUT/scores by revision, without
    texts: stopped and started again, it asks for what is missing. A server that goes away is waited for, five minutes
    at most; one that still starts, as long as --wait says.

    Exit code: 0 = within the policy, 1 = not, 2 = stopped, or not begun, 130 = interrupted.
    """
    subject = _subject(target, folder, protocol, model, revision, tensors)
    options = options_for(subject.target, access) if isinstance(subject, Server) else ChannelOptions()
    options = replace(options, max_message_bytes=max_message_bytes)
    way, place = Way(timeout, wait, batch, say_waiting, options, out / "scores"), Out(out, "audit")
    try:
        probes = _probes(probe, data or [], limit)
        policy = Policy() if gate is None else read_policy(gate)
        check_names(policy, [each.name for each in probes])
        place.check()
        with opened(subject, way) as (scorer, source):
            answers = _asked(scorer, probes, AuditScores(way.keep / f"{source.key}.jsonl"))
        findings = judge(probes, answers)
        audit = Audit(source, findings, breaches(findings, policy))
        place.write(as_json(audit), lambda file: write_card(file, audit))
        write_metrics(metrics, lambda registry: AuditMetrics(registry).found(audit))
    except KeyboardInterrupt:
        _CONSOLE.print("stopped; scores so far are kept: the same command goes on from there")
        raise typer.Exit(INTERRUPTED) from None
    except (FileProblem, FolderError, ModelChanged, PalateError, ServerStartError, OSError) as error:
        _CONSOLE.print(f"[red]stopped[/]: {escape(words_of(error))}", soft_wrap=True)
        raise typer.Exit(STOPPED) from error
    print_audit(audit, stdout_console())
    raise typer.Exit(NOT_GOOD if audit.breaches else 0)


def _probes(names: Sequence[str] | None, files: Sequence[Path], limit: int | None) -> list[Probe]:
    """The built-in ones that are asked for, and those of the sets."""
    if limit is not None and not files:
        raise typer.BadParameter("--limit goes with --data; built-in probes are asked whole, or left out with --probe")
    known = {each.name: each for each in builtin_probes()}
    wanted = list(known) if names is None else [name for name in dict.fromkeys(names) if name != "none"]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise typer.BadParameter(f"there is no probe {unknown[0]}; there are {', '.join(known)}")
    probes = [known[name] for name in wanted] + [each for file in files for each in read_set(file, limit or _LIMIT)]
    if not probes:
        raise typer.BadParameter("nothing is asked; give --data, or leave out --probe none")
    name, times = Counter(each.name for each in probes).most_common(1)[0]
    if times > 1:
        raise typer.BadParameter(f"{times} files become {name}, which nobody could tell apart; rename them")
    return probes


def _subject(
    target: str, folder: Path | None, protocol: Protocol, model: str, revision: str, tensors: str | None
) -> Server | Path:
    if bool(target) == (folder is not None):
        raise typer.BadParameter("give either --target (PALATE_TARGET), a server's address, or --folder, what to serve")
    if tensors is not None and protocol is not Protocol.OIP:
        raise typer.BadParameter("--tensors goes with --protocol oip; palate.v1 has no names of tensors")
    if folder is not None:
        if model or revision or protocol is not Protocol.PALATE:
            raise typer.BadParameter("--model, --revision and --protocol go with --target, not with --folder")
        return folder
    if protocol is Protocol.OIP:
        return Server(target, model, revision, Tensors() if tensors is None else _tensors(tensors))
    return Server(target, model, revision)


def _tensors(names: str) -> Tensors:
    given = names.split(",")
    if len(given) != 3 or not all(given):
        raise typer.BadParameter("--tensors takes three names with commas between, e.g. PROMPT,RESPONSE,REWARD")
    return Tensors(*given)


def _asked(scorer: Scorer, probes: Sequence[Probe], kept: AuditScores) -> Answers:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_CONSOLE) as progress:
        task = progress.add_task("texts", total=len(in_turn(probes)))
        return ask(scorer, probes, kept, lambda more: progress.advance(task, more))
