"""Whose run a folder holds, and how often it has been started: what keeps a stale trainer from publishing."""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

from palate.file_errors import cause_of
from trainer.config import PPOConfig
from trainer.ppo.errors import CheckpointRefused
from trainer.run_folder import learnt_in, settings_problem, store_settings

FILE_NAME = "run.json"


@dataclass(frozen=True, slots=True)
class RunStart:
    """A start of a run: its id, and 1 for the first start, 2 for the first resumption, ..."""

    run_id: str
    incarnation: int


def check(config: PPOConfig) -> None:
    """Looks whether the run may begin or go on in its folder; changes nothing, so that it can be asked first.

    A run that failed before its first step stands in nobody's way.

    Raises:
        CheckpointRefused: The folder holds a run and is not to be resumed, or holds another run than `run_id`, or one
            with other settings.
    """
    out, run_id = config.out, config.run_id
    if out.exists() and not out.is_dir():
        raise CheckpointRefused(f"{out} is a file; give a folder as --out")
    before, found = _read(out / FILE_NAME), learnt_in(out)
    if not found:
        return
    holds = f"{out} holds {f'run {before.run_id}' if before else 'a run'}"
    if not config.resume:
        raise CheckpointRefused(f"{holds} already ({', '.join(found)}): pass --resume, or another --out")
    if before is not None and run_id not in ("", before.run_id):
        raise CheckpointRefused(f"{holds}, not {run_id}: leave --run-id out or change --out")
    if problem := settings_problem(out, config):
        raise CheckpointRefused(problem)


def begin(config: PPOConfig) -> RunStart:
    """Registers a start in the folder; the number is on the disk before anything is published under it.

    Raises:
        CheckpointRefused: As `check`.
    """
    check(config)
    start = _next(_read(config.out / FILE_NAME), config.run_id)
    store_settings(config.out, config)
    file = config.out / FILE_NAME
    draft = file.with_suffix(".draft")
    with draft.open("w") as stream:
        json.dump(asdict(start), stream)
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(file)
    return start


def check_base(before: str, now: str) -> None:
    """Looks whether adapters go on where they were trained; their checkpoints hold nothing of what they are added to.

    Raises:
        CheckpointRefused: The folder of --policy holds other weights than when the run began.
    """
    if before != now:
        raise CheckpointRefused(
            f"the run's adapters were trained on weights {before[:12]}, and --policy holds {now[:12]}: put them back, "
            "or begin anew with another --out"
        )


def _next(before: RunStart | None, run_id: str) -> RunStart:
    """The same run once more; a new one where there was none, or another one that learnt nothing."""
    if before is not None and run_id in ("", before.run_id):
        return RunStart(before.run_id, before.incarnation + 1)
    return RunStart(run_id or f"ppo-{uuid.uuid4().hex[:12]}", 1)


def _read(file: Path) -> RunStart | None:
    if not file.exists():
        return None
    try:
        return RunStart(**json.loads(file.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointRefused(f"{file} cannot be read: {cause_of(error)}. Take another --out") from error
