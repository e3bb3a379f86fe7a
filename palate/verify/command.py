"""`palate verify`: the same text, the same score, in every engine and by every way, proved for a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from palate.access import Access
from palate.bulk.rows import FileProblem, read_entries
from palate.connection import Seconds, options_for, with_access
from palate.exit_codes import NOT_GOOD
from palate.json_file import JsonFile, write_json
from palate.models.folder import FolderError
from palate.models.probe_texts import GOLDEN, Pair
from palate.terminal import stdout_console
from palate.verify.run import verify
from palate.verify.show import as_json, print_report
from palate.verify.subject import EngineChoice, Running, Subject, check_folder, servers

app = typer.Typer(add_completion=False)


@app.command()
@with_access
def run(
    model: Annotated[Path, typer.Option(help="Folder of a reward model.")],
    engine: Annotated[
        list[EngineChoice] | None,
        typer.Option(help="Engine to verify, may be given several times; default is every one that is there."),
    ] = None,
    device: Annotated[
        str,
        typer.Option(
            help="Where the engines compute, as in `palate serve reward`: auto (a GPU where engine and machine have "
            "one), cpu, cuda, cuda:1 and so on. On a GPU they are held against float32 on the processor."
        ),
    ] = "auto",
    strict: Annotated[bool, typer.Option("--strict", help="Serve with --strict, and ask for the same bits.")] = False,
    against: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="A running server that shall give the scores of this folder; "
            "one that remembers scores (--cache-items) shows less.",
        ),
    ] = "",
    name: Annotated[str, typer.Option(help="Name of the model there; default is that server's default.")] = "",
    texts: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Own texts: rows with prompt and completion, .jsonl or .parquet."),
    ] = None,
    json_file: JsonFile = None,
    timeout: Seconds = 60.0,
    *,
    access: Access,
) -> None:
    """Prove that a text scores the same alone, in batches, ranked, streamed, and in every engine.

    Each engine is started as a server of this machine, one after the other. What is allowed is in docs/parity.md.
    The exit code is 1 where something is beyond it, or could not be asked, and 2 where the folder or another value
    cannot be used.
    """
    console, progress = stdout_console(), Console(stderr=True, highlight=False)
    try:
        check_folder(model)
        pairs = GOLDEN if texts is None else _read(texts)
        subjects: list[Subject] = [*servers(model, engine or [], device, strict=strict)]
    except (FileProblem, FolderError) as error:
        raise typer.BadParameter(str(error)) from error
    if against:
        subjects.append(Running(against, name, options_for(against, access)))
    with progress.status("starting") as status:
        report = verify(subjects, pairs, timeout, lambda title: status.update(f"verifying {title}"))
    print_report(report, console)
    write_json(json_file, {"model": str(model), **as_json(report)})
    raise typer.Exit(0 if report.is_good else NOT_GOOD)


def _read(file: Path) -> tuple[Pair, ...]:
    """Prompts and completions of a file.

    Raises:
        FileProblem: It cannot be read, a row lacks a text, or there are fewer than two.
    """
    pairs = []
    for entry in read_entries(file):
        prompt, completion = entry.row.get("prompt"), entry.row.get("completion")
        if not (isinstance(prompt, str) and isinstance(completion, str)):
            raise FileProblem(f"{entry.where}: {entry.problem or 'prompt and completion are to be texts'}")
        pairs.append((prompt, completion))
    if len(pairs) < 2:
        raise FileProblem(f"{file} holds {len(pairs)} texts; to compare, there must be two")
    return tuple(pairs)
