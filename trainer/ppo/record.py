"""What people see of a run: samples, and how far it is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from trainer.metrics import drop_later_steps
from trainer.ppo.store import rollout_row
from trainer.types import ScoredRollout

SAMPLES = "samples.jsonl"
SHOWN_CHARACTERS = 400


class RunDisplay:
    """A progress bar, and now and then a table of samples, which also goes to samples.jsonl.

    Args:
        out: Folder of the run.
        total_steps: Length of the bar.
        done: Steps that were done before.
        visible: Whether anything is shown; samples.jsonl is written in any case.
    """

    def __init__(self, out: Path, total_steps: int, done: int, *, visible: bool) -> None:
        self._samples = out / SAMPLES
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
            file.writelines(json.dumps(rollout_row(step, one), ensure_ascii=False) + "\n" for one in scored)
        table = Table("prompt", "completion", "score", title=f"step {step}", show_lines=True)
        for one in scored:
            # As Text: a completion may hold what rich would take for markup.
            texts = (Text(text[:SHOWN_CHARACTERS]) for text in (one.rollout.prompt, one.rollout.completion))
            table.add_row(*texts, f"{one.score:+.3f}")
        self._console.print(table)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()


def samples_markdown(scored: Sequence[ScoredRollout]) -> str:
    """Rollouts as Markdown; texts are indented, so that nothing in them is taken for markup."""
    return "\n\n".join(
        f"**prompt**\n\n{_indented(one.rollout.prompt)}\n\n**completion, score {one.score:+.3f}**\n\n"
        f"{_indented(one.rollout.completion)}"
        for one in scored
    )


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text[:SHOWN_CHARACTERS].splitlines())
