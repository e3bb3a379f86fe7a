"""Begins a run in its folder: refuses to mix two runs, and lets a resumed one go on only with the same settings."""

from __future__ import annotations

import json
from pathlib import Path

from trainer.errors import TrainerError
from trainer.fit_config import FitConfig
from trainer.metrics import FILE_NAME as METRICS_FILE
from trainer.metrics import MetricsWriter

SETTINGS_FILE = "settings.json"

_FREE = {"out", "resume", "prometheus_port", "progress", "checkpoint_every"}
"""What a resumed run may change."""


class RunFolderError(TrainerError):
    """The folder of a run cannot be used as asked; the message says what to do."""


def checkpoints_of(out: Path) -> Path:
    """Where a run keeps its checkpoints."""
    return out / "checkpoints"


def newest_checkpoint(out: Path) -> tuple[Path, int] | None:
    """The newest checkpoint of a run and its step."""
    found = {int(path.name.split("-")[1]): path for path in checkpoints_of(out).glob("checkpoint-[0-9]*")}
    return (found[max(found)], max(found)) if found else None


def begin_run(config: FitConfig) -> MetricsWriter:
    """Makes the folder and opens its metrics; rows after the checkpoint that a run goes on from are taken out.

    Raises:
        RunFolderError: An earlier run is there and was not to be resumed, or it had other settings.
    """
    out, file = config.out, config.out / SETTINGS_FILE
    settings = config.model_dump(mode="json", exclude=_FREE)
    if (out / METRICS_FILE).exists() and not config.resume:
        raise RunFolderError(f"{out} holds an earlier run; give another --out, remove it, or go on with --resume")
    if file.is_file():
        _check_same(json.loads(file.read_text(encoding="utf-8")), settings, out)
    out.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    checkpoint = newest_checkpoint(out)
    resume_step = (checkpoint[1] if checkpoint else 0) if config.resume else None
    return MetricsWriter(out, config.prometheus_port, resume_step)


def _check_same(before: dict[str, object], now: dict[str, object], out: Path) -> None:
    changed = [name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)]
    if changed:
        told = ", ".join(f"{name} (was {before.get(name)!r}, is {now.get(name)!r})" for name in changed)
        raise RunFolderError(
            f"the run in {out} had other settings: {told}; resume with the same, or give another --out"
        )
