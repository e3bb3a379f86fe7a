"""Begins a run in its folder: refuses to mix two runs, and lets a resumed one go on only with the same settings."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from palate.file_errors import cause_of
from trainer.errors import TrainerError
from trainer.exposure import Exposure
from trainer.fit_config import FitConfig
from trainer.metrics import FILE_NAME as METRICS_FILE
from trainer.metrics import MetricsWriter
from trainer.phase_settings import PhaseSettings
from trainer.written import written

SETTINGS_FILE = "settings.json"
_LOCK_FILE = ".lock"
_PHASE = "phase"
_TRAINER_STATE = "trainer_state.json"

FREE = frozenset(
    {
        "out",
        "resume",
        "run_id",  # has a check of its own
        "accept_new_reward",
        "total_steps",
        "threads",
        "device",
        "distributed",
        "collective_timeout",
        # what is recorded and shown
        "record",
        "log_every",
        "checkpoint_every",
        "prometheus_port",
        "prometheus_host",
        "progress",
        # where the services are, and how patiently they are asked
        "services",
        "rewards.target",
        "rewards.token_file",
        "rewards.server_name",
        # when a run stops, and how much memory it takes; nothing of what it learns
        "scoring.max_dropped_share",
        "invariants",
        "watch",
        "ppo.microbatch_size",
    }
)
"""What a resumed run may change, in every phase; a group stands for all of its values, a list for each entry."""


class RunFolderError(TrainerError):
    """The folder of a run cannot be used as asked; the message says what to do."""


class RunFolderBusy(TrainerError):
    """Another process trains in the folder, which may have ended at the next try."""


def checkpoints_of(out: Path) -> Path:
    """Where a run keeps its checkpoints."""
    return out / "checkpoints"


def newest_checkpoint(out: Path) -> tuple[Path, int] | None:
    """The newest whole checkpoint of a supervised run and its step; a kill may have left a newer part of one."""
    paths = [path for path in checkpoints_of(out).glob("checkpoint-[0-9]*") if is_whole(path)]
    found = {int(path.name.split("-")[1]): path for path in paths}
    return (found[max(found)], max(found)) if found else None


def is_whole(checkpoint: Path) -> bool:
    """Whether the Trainer's state, its last file, is there to its end; older checkpoints go after that."""
    try:
        json.loads((checkpoint / _TRAINER_STATE).read_bytes())
    except (OSError, ValueError):
        return False
    return True


def learnt_in(out: Path) -> list[str]:
    """What of a run's work lies in a folder; empty where no run began there, or one failed before it learnt."""
    rows, checkpoints, model = out / METRICS_FILE, checkpoints_of(out), out / "model"
    has_rows = rows.is_file() and rows.stat().st_size > 0
    has_checkpoints = checkpoints.is_dir() and any(not path.name.startswith(".") for path in checkpoints.iterdir())
    found = ((has_rows, rows), (has_checkpoints, checkpoints), (model.exists(), model))
    return [path.name for there, path in found if there]


def check_folder(config: FitConfig) -> None:
    """Looks whether the run may begin or go on in its folder; changes nothing, so that it can be asked first.

    Raises:
        RunFolderError: An earlier run is there and was not to be resumed, or it had other settings.
    """
    out = config.out
    if out.exists() and not out.is_dir():
        raise RunFolderError(f"{out} is a file; give a folder as --out")
    if (found := learnt_in(out)) and not config.resume:
        raise RunFolderError(
            f"{out} holds an earlier run ({', '.join(found)}); give another --out, remove it, or go on with --resume"
        )
    if found and (problem := settings_problem(out, config)):
        raise RunFolderError(problem)


@contextmanager
def begin_run(config: FitConfig) -> Iterator[MetricsWriter]:
    """Keeps the folder to this process and opens its metrics; rows after the checkpoint it goes on from are taken out.

    Call it when the inputs have been read and found good: a run that fails before that leaves nothing behind.

    Raises:
        RunFolderError: As `check_folder`, or another process trains there.
        NotWritten: The disk is full, now or later.
    """
    check_folder(config)
    with written(config.out), held(config.out):
        store_settings(config.out, config)
        checkpoint = newest_checkpoint(config.out)
        resume_step = (checkpoint[1] if checkpoint else 0) if config.resume else None
        exposure = Exposure(config.prometheus_port, config.prometheus_host)
        with MetricsWriter(config.out, exposure, resume_step) as writer:
            yield writer


@contextmanager
def held(out: Path) -> Iterator[None]:
    """Keeps a run's folder to this process until the end, or until the process ends, in whatever way.

    Raises:
        RunFolderBusy: Another process has it.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / _LOCK_FILE).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunFolderBusy(
                f"another process trains in {out}: let it end, stop it and go on with --resume, or give another --out"
            ) from error
        yield


def store_settings(out: Path, config: PhaseSettings) -> None:
    """Writes down, in the folder, everything that a resumed run may not change."""
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps({_PHASE: config.phase, **bound_settings(config)}, indent=2) + "\n"
    draft = out / f"{SETTINGS_FILE}.draft"
    draft.write_text(text, encoding="utf-8")
    draft.replace(out / SETTINGS_FILE)


def bound_settings(config: PhaseSettings) -> dict[str, Any]:
    """The settings that a resumed run may not change, by their names in YAML, dots between groups and values."""
    values = dict(_flat(config.model_dump(mode="json"), ""))
    return {name: value for name, value in values.items() if not _is_free(name)}


def settings_problem(out: Path, config: PhaseSettings) -> str:
    """Why the run in `out` cannot go on with `config`; empty where it can.

    What the file does not name had no setting yet when the run began, and was as the default is.
    """
    file, now = out / SETTINGS_FILE, bound_settings(config)
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return (
            f"{file} cannot be read ({cause_of(error)}), so nobody knows how the run in {out} began; give another --out"
        )
    if (phase := before.pop(_PHASE, config.phase)) != config.phase:
        return f"the run in {out} is one of `palate train {phase}`: give another --out, or go on with that command"
    before = {**{name: value for name, value in _defaults(config).items() if name in now}, **before}
    changed = [name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)]
    told = ", ".join(f"{name} (was {before.get(name)!r}, is {now.get(name)!r})" for name in changed)
    return told and f"the run in {out} had other settings: {told}; resume with the same, or give another --out"


def _defaults(config: PhaseSettings) -> dict[str, Any]:
    """What `config` has by default, by the names of `bound_settings`; without what has to be given."""
    return bound_settings(type(config).model_construct())


def _is_free(name: str) -> bool:
    """Places in a list do not count: what is free of one entry is free of all."""
    parts = [part for part in name.split(".") if not part.isdigit()]
    return bool({".".join(parts), parts[0]} & FREE)


def _flat(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            yield from _flat({str(place): each for place, each in enumerate(value)}, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
