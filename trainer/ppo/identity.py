"""Whose run a folder holds, and how often it has been started: what keeps a stale trainer from publishing."""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

from trainer.ppo.errors import CheckpointRefused

FILE_NAME = "run.json"


@dataclass(frozen=True, slots=True)
class RunStart:
    """A start of a run: its id, and 1 for the first start, 2 for the first resumption, ..."""

    run_id: str
    incarnation: int


def begin(out: Path, run_id: str, *, resume: bool) -> RunStart:
    """Registers a start in `out`; the number is on the disk before anything is published under it.

    Raises:
        CheckpointRefused: The folder holds a run and is not to be resumed, or holds another run than `run_id`.
    """
    file = out / FILE_NAME
    before = _read(file)
    if before is not None and not resume:
        raise CheckpointRefused(f"{out} holds run {before.run_id} already: pass --resume, or another --out")
    if before is not None and run_id not in ("", before.run_id):
        raise CheckpointRefused(f"{out} holds run {before.run_id}, not {run_id}: leave --run-id out or change --out")
    if before is None:
        start = RunStart(run_id or f"ppo-{uuid.uuid4().hex[:12]}", 1)
    else:
        start = RunStart(before.run_id, before.incarnation + 1)
    out.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(".draft")
    with draft.open("w") as stream:
        json.dump(asdict(start), stream)
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(file)
    return start


def _read(file: Path) -> RunStart | None:
    if not file.exists():
        return None
    try:
        return RunStart(**json.loads(file.read_text()))
    except (ValueError, TypeError) as error:
        raise CheckpointRefused(f"{file} cannot be read: {error}. Take another --out") from error
