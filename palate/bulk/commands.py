"""`palate score` and `palate rank`: files in, the same rows out with what the reward service says of them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from palate.access import Access
from palate.aggregate import HELP, AggregateName, aggregate_of, check_members
from palate.bulk.calls import Calls
from palate.bulk.items import ENVELOPE_BYTES, Columns, Limits
from palate.bulk.ranking import RANK_FIELDS, ranked_rows
from palate.bulk.results import Results
from palate.bulk.revision import ModelChanged, OneRevision
from palate.bulk.rows import Entry, FileProblem, Row, count_entries, read_entries, without
from palate.bulk.scoring import SCORE_FIELDS, scored_rows
from palate.client import (
    ChannelOptions,
    FailedPrecondition,
    InvalidInput,
    ModelInfo,
    PalateError,
    RewardClient,
    Truncation,
)
from palate.client.types import ScoreOptions
from palate.connection import Seconds, Target, Wait, options_for, with_access
from palate.exit_codes import INTERRUPTED, SOME_FAILED, STOPPED
from palate.file_errors import words_of
from palate.waiting import WAIT_SECONDS, say_waiting, when_ready

score_app = typer.Typer(add_completion=False)
rank_app = typer.Typer(add_completion=False)

_CONSOLE = Console(stderr=True, highlight=False)

Input = Annotated[Path, typer.Argument(metavar="IN", help="Rows, .jsonl or .parquet.")]
Output = Annotated[Path, typer.Argument(metavar="OUT", help="The same rows with results, .jsonl or .parquet.")]
PromptField = Annotated[str, typer.Option(help="Field with the prompt: text, or a list of {role, content}.")]
Cut = Annotated[
    Truncation, typer.Option("--truncation", help="What to do with what is too long.", case_sensitive=False)
]
Way = Annotated[AggregateName | None, typer.Option("--aggregate", help=HELP["aggregate"])]
Weight = Annotated[float | None, typer.Option("--variance-weight", help=HELP["variance_weight"], min=0.0)]
Model = Annotated[str, typer.Option(help="Name of the model; empty = the server's default.")]
Revision = Annotated[
    str,
    typer.Option(
        help="Revision to insist on, whole, as `scored_by` says it: a server with another one stops the job. "
        "Empty = that of the first row.",
    ),
]
MessageBytes = Annotated[
    int,
    typer.Option(
        "--max-message-bytes",
        help="Largest request; a row that needs more fails. The server has the same setting.",
        min=64 * 1024,
        max=2**31 - 1,
    ),
]
MESSAGE_BYTES = ChannelOptions().max_message_bytes


@score_app.command()
@with_access
def score(
    source: Input,
    out: Output,
    target: Target,
    prompt_field: PromptField = "prompt",
    completion_field: Annotated[str, typer.Option(help="Field with the completion.")] = "completion",
    batch: Annotated[int, typer.Option(help="Items in one request; the server's own limit holds too.", min=1)] = 32,
    model: Model = "",
    revision: Revision = "",
    truncation: Cut = Truncation.MODEL_DEFAULT,
    aggregate: Way = None,
    variance_weight: Weight = None,
    timeout: Seconds = 60.0,
    wait: Wait = WAIT_SECONDS,
    max_message_bytes: MessageBytes = MESSAGE_BYTES,
    *,
    access: Access,
) -> None:
    """Score every row of a file.

    A row gets `score` and `scored_by`, or `error` and no score; what an earlier run wrote there goes. A line that is
    no row becomes a row with its `error`.

    All rows are scored by one revision: where the server's model is exchanged, the job stops. Stopped and started
    again, it goes on where it was. A server that goes away is waited for, five minutes at most; one that still starts,
    as long as --wait says.

    Exit code: 0 = every row has a score, 3 = done, but some rows have an error instead, 2 = stopped, or not begun.
    """
    options = replace(options_for(target, access), max_message_bytes=max_message_bytes)
    how = _how(truncation, aggregate, variance_weight)
    columns = Columns(prompt_field, completion_field)
    fields = {"--prompt-field": prompt_field, "--completion-field": completion_field}
    told = fields | _told(truncation, aggregate, variance_weight)
    with RewardClient(target, timeout=timeout, model=model, revision=revision, options=options) as client:

        def results(entries: Iterable[Entry], held: OneRevision) -> Iterator[list[Row]]:
            limits = limits_of(when_ready(client.model_info, wait), options, how, batch)
            return scored_rows(Calls(client, how, held, say_waiting), entries, columns, limits)

        _run(source, out, revision, _Work(results, SCORE_FIELDS, _unscored, told))


@rank_app.command()
@with_access
def rank(
    source: Input,
    out: Output,
    target: Target,
    prompt_field: PromptField = "prompt",
    completions_field: Annotated[str, typer.Option(help="Field with the list of completions.")] = "completions",
    model: Model = "",
    revision: Revision = "",
    truncation: Cut = Truncation.MODEL_DEFAULT,
    aggregate: Way = None,
    variance_weight: Weight = None,
    timeout: Seconds = 60.0,
    wait: Wait = WAIT_SECONDS,
    max_message_bytes: MessageBytes = MESSAGE_BYTES,
    *,
    access: Access,
) -> None:
    """Rank the completions of every row of a file, best first.

    A row gets `order` (indices, best first), `ranking` (a score or an error for each) and `scored_by`, or `error`
    where it cannot be ranked at all; what an earlier run wrote there goes. A line that is no row becomes a row with
    its `error`.

    All rows are ranked by one revision: where the server's model is exchanged, the job stops. Stopped and started
    again, it goes on where it was. A server that goes away is waited for, five minutes at most; one that still starts,
    as long as --wait says.

    Exit code: 0 = every completion has a score, 3 = done, but some rows have errors, 2 = stopped, or not begun.
    """
    options = replace(options_for(target, access), max_message_bytes=max_message_bytes)
    how = _how(truncation, aggregate, variance_weight)
    columns = Columns(prompt_field, completions_field)
    fields = {"--prompt-field": prompt_field, "--completions-field": completions_field}
    told = fields | _told(truncation, aggregate, variance_weight)
    with RewardClient(target, timeout=timeout, model=model, revision=revision, options=options) as client:

        def results(entries: Iterable[Entry], held: OneRevision) -> Iterator[list[Row]]:
            limits = limits_of(when_ready(client.model_info, wait), options, how)
            return ranked_rows(Calls(client, how, held, say_waiting), entries, columns, limits)

        _run(source, out, revision, _Work(results, RANK_FIELDS, _partly_unranked, told))


@dataclass(frozen=True, slots=True)
class _Work:
    """What is done with rows.

    Attributes:
        run: Rows in, batches of the same rows with results out, all of one revision.
        fields: What the results are written to.
        error: Why a row with its result has none; empty where it has.
        told: What results depend on, by flag: rows that were made otherwise are not gone on with.
    """

    run: Callable[[Iterable[Entry], OneRevision], Iterator[list[Row]]]
    fields: frozenset[str]
    error: Callable[[Row], str]
    told: Mapping[str, str]


def _how(truncation: Truncation, name: AggregateName | None, variance_weight: float | None) -> ScoreOptions:
    try:
        return ScoreOptions(truncation=truncation, aggregate=aggregate_of(name, variance_weight))
    except InvalidInput as error:
        raise typer.BadParameter(str(error)) from error


def _told(truncation: Truncation, name: AggregateName | None, variance_weight: float | None) -> dict[str, str]:
    """How scores are made, by flag; empty = as the model does."""
    cut = "" if truncation is Truncation.MODEL_DEFAULT else truncation.lower()
    weight = "" if variance_weight is None else repr(variance_weight)
    return {"--truncation": cut, "--aggregate": name or "", "--variance-weight": weight}


def limits_of(info: ModelInfo, options: ChannelOptions, how: ScoreOptions, most: int = 2**31 - 1) -> Limits:
    """What one request to the server of this model may hold; no more than `most` items."""
    check_members(how["aggregate"], info)
    return Limits(min(most, info.max_items), options.max_message_bytes - ENVELOPE_BYTES)


def _run(source: Path, out: Path, revision: str, work: _Work) -> None:
    try:
        results = Results(out, work.told)
        errors = _process(source, results, revision, work)
    except KeyboardInterrupt:
        _say(f"stopped; what is done is kept in {out}.partial: the same command goes on from there")
        raise typer.Exit(INTERRUPTED) from None
    except (FileProblem, ModelChanged, PalateError, OSError) as error:
        remedy = "; serve that revision, or pin another one" if isinstance(error, FailedPrecondition) else ""
        _CONSOLE.print(f"[red]stopped[/]: {escape(words_of(error))}{remedy}", soft_wrap=True)
        raise typer.Exit(STOPPED) from error
    _report(errors, out)


def _say(text: str) -> None:
    _CONSOLE.print(text, markup=False, soft_wrap=True)


def _report(errors: list[str], out: Path) -> None:
    failed = [number for number, error in enumerate(errors, 1) if error]
    said = [f"{len(errors)} rows in {out}, {len(failed)} without a result"]
    if failed:
        said.append(f"the first of them, row {failed[0]}: {errors[failed[0] - 1]}")
    _say("\n".join(said))
    if failed:
        raise typer.Exit(SOME_FAILED)


def _process(source: Path, results: Results, revision: str, work: _Work) -> list[str]:
    """Does what is left to do; returns for every row its error, empty where it has a result."""
    total, done = count_entries(source), results.done()
    _check_same_input(source, done, work.fields)
    held, errors = OneRevision(done, results.partial, revision), [work.error(row) for row in done]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_CONSOLE) as progress:
        task = progress.add_task("rows", total=total, completed=len(done))
        for rows in work.run(itertools.islice(read_entries(source), len(done), None), held):
            results.append(rows)
            errors += [work.error(row) for row in rows]
            progress.advance(task, len(rows))
    results.finish()
    return errors


def _check_same_input(source: Path, done: list[Row], results: frozenset[str]) -> None:
    """Results of another input must not be gone on with."""
    for before, entry in zip(done, read_entries(source), strict=False):
        if _fingerprint(before, results) != _fingerprint(entry.row, results):
            raise FileProblem(f"{entry.where} is not what an earlier run began with; remove its .partial file")


def _fingerprint(row: Row, results: frozenset[str]) -> str:
    """What an input row is told by; unlike the values, NaN equals itself here."""
    return json.dumps(without(row, results))


def _unscored(row: Row) -> str:
    return str(row.get("error", ""))


def _partly_unranked(row: Row) -> str:
    errors = [result["error"] for result in row.get("ranking", []) if "error" in result]
    return _unscored(row) or next(iter(errors), "")
