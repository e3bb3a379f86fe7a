"""What people read of a run: every rollout with its score, samples, and how far it is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from trainer.metrics import drop_later_steps
from trainer.types import ScoredRollout

_SHOWN_CHARACTERS = 400


class RolloutFile:
    """rollouts.jsonl: each scored text with where it came from, so that anybody can score it again.

    Args:
        path: The file.
        max_bytes: At this size it becomes `<path>.1`, replacing an older one.
        resume_step: The last step that counts; None = a new run.
    """

    def __init__(self, path: Path, max_bytes: int, resume_step: int | None) -> None:
        self._path = path
        self._former = path.with_name(f"{path.name}.1")
        self._max_bytes = max_bytes
        if resume_step is not None:
            for file in (path, self._former):
                drop_later_steps(file, resume_step)

    def write(self, step: int, scored: Sequence[ScoredRollout]) -> None:
        """Adds the rollouts of a step."""
        if self._path.exists() and self._path.stat().st_size >= self._max_bytes:
            self._path.replace(self._former)
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(_row(step, one), ensure_ascii=False) + "\n" for one in scored)


class RunDisplay:
    """A progress bar, and now and then a table of samples, which also goes to samples.jsonl.

    Args:
        out: Folder of the run.
        total_steps: Length of the bar.
        done: Steps that were done before.
        visible: Whether anything is shown; samples.jsonl is written in any case.
    """

    def __init__(self, out: Path, total_steps: int, done: int, *, visible: bool) -> None:
        self._samples = out / "samples.jsonl"
        drop_later_steps(self._samples, done)
        self._console = Console(stderr=True, quiet=not visible)
        columns = (TextColumn("PPO"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[told]}"))
        self._progress = Progress(*columns, TimeRemainingColumn(), console=self._console, disable=not visible)
        self._task = self._progress.add_task("PPO", total=total_steps, completed=done, told="")

    def advance(self, step: int, metrics: Mapping[str, float]) -> None:
        """Shows that a step is done."""
        told = f"score {metrics['objective/scores']:+.3f}  KL {metrics['objective/kl']:.2f}"
        self._progress.update(self._task, completed=step, told=told)

    def show_samples(self, step: int, scored: Sequence[ScoredRollout]) -> None:
        """Some rollouts of a step, as given."""
        with self._samples.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(_row(step, one), ensure_ascii=False) + "\n" for one in scored)
        table = Table("prompt", "completion", "score", title=f"step {step}", show_lines=True)
        for one in scored:
            # As Text: a completion may hold what rich would take for markup.
            texts = (Text(text[:_SHOWN_CHARACTERS]) for text in (one.rollout.prompt, one.rollout.completion))
            table.add_row(*texts, f"{one.score:+.3f}")
        self._console.print(table)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()


def _row(step: int, scored: ScoredRollout) -> dict[str, Any]:
    rollout = scored.rollout
    version = rollout.policy_version
    return {
        "step": step,
        "prompt": rollout.prompt,
        "completion": rollout.completion,
        "score": scored.score,
        "reward_revision": scored.revision,
        "completion_tokens": len(rollout.completion_ids),
        "finish_reason": rollout.finish_reason.value,
        "seed": rollout.seed,
        "policy_version": {
            "run_id": version.run_id,
            "incarnation": version.incarnation,
            "step": version.step,
            "digest": version.digest,
        },
    }
