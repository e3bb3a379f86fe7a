"""`palate rescore`: what another reward model would have said of a run's rollouts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from palate.access import Access
from palate.bulk.calls import Calls
from palate.bulk.commands import (
    MESSAGE_BYTES,
    MessageBytes,
    Model,
    limits_of,
)
from palate.bulk.revision import ModelChanged, OneRevision
from palate.bulk.rows import FileProblem
from palate.client import ChannelOptions, PalateError, Provenance, RewardClient
from palate.client.types import Aggregate, ScoreOptions, Truncation
from palate.connection import Seconds, Target, Wait, options_for, with_access
from palate.exit_codes import INTERRUPTED, SOME_FAILED, STOPPED
from palate.file_errors import words_of
from palate.json_file import JsonFile, write_json
from palate.rescore.kept import KeptScores
from palate.rescore.report import Report, make_report
from palate.rescore.rescoring import score_missing, side_by_side
from palate.rescore.show import as_json, print_report
from palate.rollout_files import RolloutFile, count_rollouts, stored_files
from palate.terminal import stdout_console
from palate.waiting import WAIT_SECONDS, say_waiting, when_ready

app = typer.Typer(add_completion=False)

FOLDER = "rescored"
"""Where scores are kept in the folder of a run."""

_HOW = ScoreOptions(truncation=Truncation.MODEL_DEFAULT, aggregate=Aggregate.MODEL_DEFAULT)
_CONSOLE = Console(stderr=True, highlight=False)


@app.command()
@with_access
def run(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a PPO run, its --out.")],
    target: Target,
    model: Model = "",
    revision: Annotated[str, typer.Option(help="Revision to insist on, whole; empty = what is served now.")] = "",
    component: Annotated[
        str, typer.Option(help="Compare with the raw score of this one of the run's rewards; empty = its score.")
    ] = "",
    top: Annotated[
        int, typer.Option(help="Largest disagreements to show, with their texts; 0 = none.", min=0, max=1000)
    ] = 5,
    json_file: JsonFile = None,
    timeout: Seconds = 60.0,
    wait: Wait = WAIT_SECONDS,
    max_message_bytes: MessageBytes = MESSAGE_BYTES,
    *,
    access: Access,
) -> None:
    """Score a run's stored rollouts by another reward model, and say where it would have judged otherwise.

    Scores are kept in RUN/rescored by revision, without texts: stopped and started again, it asks for what is missing.
    An item that gets no score is counted as failed and compared with nothing.

    Exit code: 0 = every rollout has a score, 3 = done, but some failed, 2 = stopped, or not begun.
    """
    options = replace(options_for(target, access), max_message_bytes=max_message_bytes)
    try:
        with RewardClient(target, timeout=timeout, model=model, options=options) as client:
            served = when_ready(client.model_info, wait).provenance
        if revision not in ("", served.revision):
            raise ModelChanged(f"{target} serves revision {served.revision}, not {revision}; serve that one")
        with RewardClient(target, timeout=timeout, model=model, revision=served.revision, options=options) as client:
            report = _rescore(run, component, client, options, served, top)
        write_json(json_file, as_json(report))
    except KeyboardInterrupt:
        _CONSOLE.print("stopped; scores so far are kept: the same command goes on from there")
        raise typer.Exit(INTERRUPTED) from None
    except (FileProblem, ModelChanged, PalateError, OSError) as error:
        _CONSOLE.print(f"[red]stopped[/]: {escape(words_of(error))}", soft_wrap=True)
        raise typer.Exit(STOPPED) from error
    print_report(report, stdout_console())
    raise typer.Exit(SOME_FAILED if report.failed else 0)


def _rescore(
    run: Path, component: str, client: RewardClient, options: ChannelOptions, served: Provenance, top: int
) -> Report:
    files = stored_files(run)
    kept = KeptScores(run / FOLDER / f"{served.revision}-{served.engine}-{served.dtype}.jsonl")
    calls = Calls(client, _HOW, OneRevision((), kept.path, served.revision), say_waiting)
    failed = _with_progress(calls, files, kept, client, options)
    return make_report(run, component, served, side_by_side(files, kept, failed, component), files, top)


def _with_progress(
    calls: Calls, files: list[RolloutFile], kept: KeptScores, client: RewardClient, options: ChannelOptions
) -> dict[str, str]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_CONSOLE) as progress:
        task = progress.add_task("rollouts", total=count_rollouts(files))
        limits = limits_of(client.model_info(), options, _HOW)
        return score_missing(calls, files, kept, limits, lambda: progress.advance(task))
