"""The rollouts of a run as Parquet files: what a row holds, how a file is written, and how all are read in order.

A file holds whole steps, and its name says which: ``steps-000001-000010.parquet``. It is written beside its place and
renamed, so that a file that has its name is whole.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palate.bulk.rows import FileProblem, Row, pyarrow_parquet, read_parquet

FOLDER = "rollouts"
"""Where they are in the folder of a run."""

_NAME = re.compile(r"steps-(\d+)-(\d+)\.parquet")
_DRAFT = ".draft"


@dataclass(frozen=True, slots=True)
class RolloutFile:
    """A file, and the first and last step in it."""

    path: Path
    first: int
    last: int


def rollout_files(folder: Path) -> list[RolloutFile]:
    """The files in a folder, oldest steps first; none where there is no folder."""
    found = ((path, _NAME.fullmatch(path.name)) for path in folder.iterdir()) if folder.is_dir() else ()
    files = [RolloutFile(path, int(match[1]), int(match[2])) for path, match in found if match]
    return sorted(files, key=lambda file: file.first)


def read_rollouts(run: Path, columns: Sequence[str] | None = None) -> Iterator[Row]:
    """Every stored rollout of a run, in the order of steps and of places in the batch, a few in memory at a time.

    Args:
        run: Folder of the run.
        columns: What is read of each; None = everything.

    Raises:
        FileProblem: There are none, or a file is broken.
    """
    return read_files(stored_files(run), columns)


def stored_files(run: Path) -> list[RolloutFile]:
    """The files of a run, at least one.

    Raises:
        FileProblem: There are none.
    """
    files = rollout_files(run / FOLDER)
    if not files:
        raise FileProblem(f"{run / FOLDER} holds no rollouts; give a run's folder, the --out of `palate train ppo`")
    return files


def read_files(files: Iterable[RolloutFile], columns: Sequence[str] | None = None) -> Iterator[Row]:
    """The rollouts of some files, as `read_rollouts`."""
    for file in files:
        for entry in read_parquet(file.path, columns):
            yield entry.row


def count_rollouts(files: Iterable[RolloutFile]) -> int:
    """How many rollouts are in the files.

    Raises:
        FileProblem: A file is broken.
    """
    return sum(1 for _ in read_files(files, ("step",)))


def write_rollouts(folder: Path, rows: Sequence[Row]) -> RolloutFile:
    """A new file, whole when it has its name.

    Args:
        folder: Where to; made if it is missing.
        rows: Of one or more whole steps, in order, with the columns of `schema`.
    """
    import pyarrow

    first, last = rows[0]["step"], rows[-1]["step"]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"steps-{first:06d}-{last:06d}.parquet"
    draft = path.with_suffix(_DRAFT)
    table = pyarrow.Table.from_pylist(list(rows), schema=schema())
    with draft.open("wb") as stream:
        pyarrow_parquet().write_table(table, stream, compression="zstd")
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(path)
    return RolloutFile(path, first, last)


def remove_drafts(folder: Path) -> None:
    """Removes what a killed run was writing."""
    for draft in folder.glob(f"*{_DRAFT}"):
        draft.unlink()


def schema() -> Any:
    """The columns, a `pyarrow.Schema`; docs/ppo.md says what each is."""
    import pyarrow as pa

    text, number, ids = pa.string(), pa.float64(), pa.list_(pa.int32())
    version = pa.struct({"run_id": text, "incarnation": pa.int64(), "step": pa.int64(), "digest": text})
    span = pa.struct({"first_token": pa.int32(), "version": version})
    component = {"name": text, "score": number, "revision": text, "std": number}
    columns = {
        "step": pa.int64(),
        "place": pa.int32(),
        "prompt": text,
        "completion": text,
        "prompt_ids": ids,
        "completion_ids": ids,
        "behaviour_logprobs": pa.list_(pa.float32()),
        "finish_reason": text,
        "seed": pa.uint64(),
        "policy_version": version,
        "policy_versions": pa.list_(span),
        "score": number,
        "components": pa.list_(pa.struct(component)),
        "shaped_score": number,
        "reward_revision": text,
    }
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in columns.items()])
