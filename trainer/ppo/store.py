"""Keeps every scored rollout of a run, so that anybody can score it again: Parquet files of whole steps, bounded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from palate.rollout_files import FOLDER, remove_drafts, rollout_files, write_rollouts
from trainer.types import ScoredRollout


class RolloutStore:
    """rollouts/ of a run: steps are collected and written together, a file at a time.

    A killed run keeps every file that was finished. `finish_file` before each checkpoint makes files end where a run
    may go on from, so that going back to a checkpoint means to remove whole files.

    Args:
        out: Folder of the run.
        steps_per_file: After so many steps a file is written in any case.
        max_bytes: Above this the oldest files are removed; the newest stays.
        done: Steps that count; files with later ones are of a start that was gone back on, and go.
    """

    def __init__(self, out: Path, steps_per_file: int, max_bytes: int, done: int) -> None:
        self._folder = out / FOLDER
        self._steps_per_file = steps_per_file
        self._max_bytes = max_bytes
        self._rows: list[dict[str, Any]] = []
        self._steps = 0
        remove_drafts(self._folder)
        for file in rollout_files(self._folder):
            if file.last > done:
                file.path.unlink()

    def write(self, step: int, scored: Sequence[ScoredRollout], shaped_scores: Sequence[float]) -> None:
        """Adds the rollouts of a step; (B,) `shaped_scores` are what they were rewarded with at their last token."""
        each = enumerate(zip(scored, shaped_scores, strict=True))
        self._rows += [
            {**rollout_row(step, one), "place": place, **_tokens(one), "shaped_score": shaped}
            for place, (one, shaped) in each
        ]
        self._steps += 1
        if self._steps == self._steps_per_file:
            self.finish_file()

    def finish_file(self) -> None:
        """Writes what has been collected."""
        if self._rows:
            write_rollouts(self._folder, self._rows)
            self._rows, self._steps = [], 0
            self._keep_bound()

    def _keep_bound(self) -> None:
        files = rollout_files(self._folder)
        sizes = [file.path.stat().st_size for file in files]
        total = sum(sizes)
        for file, size in zip(files[:-1], sizes[:-1], strict=True):
            if total <= self._max_bytes:
                break
            file.path.unlink()
            total -= size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """What a run did before it failed is worth looking at."""
        self.finish_file()


def rollout_row(step: int, scored: ScoredRollout) -> dict[str, Any]:
    """What a rollout is told by: its texts, where they come from, and what it was found worth."""
    rollout = scored.rollout
    return {
        "step": step,
        "prompt": rollout.prompt,
        "completion": rollout.completion,
        "score": scored.score,
        "components": [asdict(component) for component in scored.components],
        "reward_revision": scored.revision,
        "finish_reason": rollout.finish_reason.value,
        "seed": rollout.seed,
        "policy_version": asdict(rollout.oldest_version),
    }


def _tokens(scored: ScoredRollout) -> dict[str, Any]:
    rollout = scored.rollout
    return {
        "prompt_ids": list(rollout.prompt_ids),
        "completion_ids": list(rollout.completion_ids),
        "behaviour_logprobs": list(rollout.behaviour_logprobs),
        "policy_versions": [asdict(span) for span in rollout.policy_versions],
    }
