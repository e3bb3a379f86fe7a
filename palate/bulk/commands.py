"""`palate score` and `palate rank`: files in, the same rows out with what the reward service says of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from palate.access import Access
from palate.bulk.ranking import RANK_FIELDS, ranked_rows
from palate.bulk.rows import FileProblem, Results, Row, count_rows, read_rows, without
from palate.bulk.scoring import SCORE_FIELDS, Columns, scored_rows
from palate.client import PalateError, RewardClient, Truncation
from palate.connection import CaFile, Certificate, InsecureToken, Key, ServerName, Target, TokenFile, options_for

score_app = typer.Typer(add_completion=False)
rank_app = typer.Typer(add_completion=False)

Input = Annotated[Path, typer.Argument(metavar="IN", help="Rows, .jsonl or .parquet.")]
Output = Annotated[Path, typer.Argument(metavar="OUT", help="The same rows with results, .jsonl or .parquet.")]
PromptField = Annotated[str, typer.Option(help="Field with the prompt: text, or a list of {role, content}.")]
Cut = Annotated[
    Truncation, typer.Option("--truncation", help="What to do with what is too long.", case_sensitive=False)
]
Seconds = Annotated[float, typer.Option(help="Deadline of one request in seconds.", min=0.1)]


@score_app.command()
def score(
    source: Input,
    out: Output,
    target: Target,
    prompt_field: PromptField = "prompt",
    completion_field: Annotated[str, typer.Option(help="Field with the completion.")] = "completion",
    batch: Annotated[int, typer.Option(help="Items in one request; the server's own limit holds too.", min=1)] = 32,
    truncation: Cut = Truncation.MODEL_DEFAULT,
    timeout: Seconds = 60.0,
    ca: CaFile = None,
    certificate: Certificate = None,
    key: Key = None,
    server_name: ServerName = "",
    token_file: TokenFile = None,
    insecure_token: InsecureToken = False,
) -> None:
    """Score every row of a file.

    A row gets `score` and `scored_by`, or `error` and no score; what an earlier run wrote there goes.
    Stopped and started again, it goes on where it was.
    The exit code is 1 where rows failed.
    """
    columns = Columns(prompt_field, completion_field)

    def results(client: RewardClient, rows: Iterable[Row]) -> Iterator[list[Row]]:
        return scored_rows(client, rows, columns, min(batch, client.model_info().max_items), truncation)

    options = options_for(target, Access(ca, certificate, key, server_name, token_file, insecure_token))
    with RewardClient(target, timeout=timeout, options=options) as client:
        _run(source, out, _Work(lambda rows: results(client, rows), SCORE_FIELDS, _unscored))


@rank_app.command()
def rank(
    source: Input,
    out: Output,
    target: Target,
    prompt_field: PromptField = "prompt",
    completions_field: Annotated[str, typer.Option(help="Field with the list of completions.")] = "completions",
    truncation: Cut = Truncation.MODEL_DEFAULT,
    timeout: Seconds = 60.0,
    ca: CaFile = None,
    certificate: Certificate = None,
    key: Key = None,
    server_name: ServerName = "",
    token_file: TokenFile = None,
    insecure_token: InsecureToken = False,
) -> None:
    """Rank the completions of every row of a file, best first.

    A row gets `order` (indices, best first), `ranking` (a score or an error for each) and `scored_by`.
    """
    options = options_for(target, Access(ca, certificate, key, server_name, token_file, insecure_token))
    with RewardClient(target, timeout=timeout, options=options) as client:
        work = _Work(
            lambda rows: ranked_rows(client, rows, prompt_field, completions_field, truncation),
            RANK_FIELDS,
            _partly_unranked,
        )
        _run(source, out, work)


@dataclass(frozen=True, slots=True)
class _Work:
    """What is done with rows.

    Attributes:
        run: Rows in, batches of the same rows with results out.
        fields: What the results are written to.
        failed: Whether a row with its result has none.
    """

    run: Callable[[Iterable[Row]], Iterator[list[Row]]]
    fields: frozenset[str]
    failed: Callable[[Row], bool]


def _run(source: Path, out: Path, work: _Work) -> None:
    console = Console(stderr=True)
    try:
        failed, total = _process(source, Results(out), work, console)
    except (FileProblem, PalateError, OSError) as error:
        console.print(f"[red]stopped[/]: {escape(str(error))}", highlight=False)
        raise typer.Exit(2) from error
    console.print(f"{total} rows in {out}, {failed} without a result", highlight=False)
    if failed:
        raise typer.Exit(1)


def _process(source: Path, results: Results, work: _Work, console: Console) -> tuple[int, int]:
    """Does what is left to do; returns how many rows failed, and how many there are."""
    total, done = count_rows(source), results.done()
    _check_same_input(source, done, work.fields)
    failed = sum(work.failed(row) for row in done)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("rows", total=total, completed=len(done))
        for rows in work.run(itertools.islice(read_rows(source), len(done), None)):
            results.append(rows)
            failed += sum(work.failed(row) for row in rows)
            progress.advance(task, len(rows))
    results.finish()
    return failed, total


def _check_same_input(source: Path, done: list[Row], results: frozenset[str]) -> None:
    """Results of another input must not be gone on with."""
    for number, (before, now) in enumerate(zip(done, read_rows(source), strict=False), 1):
        if without(before, results) != without(now, results):
            raise FileProblem(
                f"row {number} of {source} is not what an earlier run began with; remove its .partial file"
            )


def _unscored(row: Row) -> bool:
    return "error" in row


def _partly_unranked(row: Row) -> bool:
    return any("error" in result for result in row["ranking"])
