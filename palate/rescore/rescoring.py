"""Scores stored rollouts through another reward service, and puts both scores side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from palate.bulk.calls import Calls
from palate.bulk.items import Columns, Limits
from palate.bulk.rows import Entry, FileProblem, Row
from palate.bulk.scoring import scored_rows
from palate.rescore.compare import Both
from palate.rescore.kept import KeptScores, text_key
from palate.rollout_files import RolloutFile, read_files

_TEXTS = Columns("prompt", "completion")


@dataclass(frozen=True, slots=True)
class Rescored:
    """What became of stored rollouts.

    Attributes:
        both: Those that the other service scored too.
        failed: (step, code) → how many of the step got no score.
        revisions: Of the reward models that the run was scored by.
    """

    both: Both
    failed: Counter[tuple[int, str]]
    revisions: tuple[str, ...]


def score_missing(
    calls: Calls, files: Sequence[RolloutFile], kept: KeptScores, limits: Limits, read: Callable[[], None]
) -> dict[str, str]:
    """Asks for every text that has no kept score, each once; returns the codes of those that failed, by text key.

    Args:
        calls: Of the other service.
        files: Stored rollouts.
        kept: Where scores go.
        limits: Of one request.
        read: Called for each rollout that was read.

    Raises:
        FileProblem: A file is broken.
        ModelChanged: Another revision answers than before.
        CallError: The server refuses all requests, or stayed away too long.
    """
    failed: dict[str, str] = {}
    for rows in scored_rows(calls, _unscored(files, kept, read), _TEXTS, limits):
        kept.add({row["key"]: row["score"] for row in rows if "score" in row})
        failed |= {row["key"]: row["error"].partition(":")[0] for row in rows if "error" in row}
    return failed


def side_by_side(
    files: Sequence[RolloutFile], kept: KeptScores, failed: dict[str, str], component: str = ""
) -> Rescored:
    """Both scores of every rollout; with `component`, the raw score of that one is what the run has stored.

    Raises:
        FileProblem: A file is broken, or the run has no such component.
    """
    found = _Columns()
    for index, row in enumerate(read_files(files, ("step", "prompt", "completion", *_STORED))):
        key, step = text_key(row), row["step"]
        found.revisions[row["reward_revision"]] += 1
        if (after := kept.get(key)) is None:
            found.failed[step, failed[key]] += 1
        else:
            found.add(index, row, _stored_score(row, component), after)
    return Rescored(found.both(), found.failed, tuple(found.revisions))


_STORED = ("score", "components", "reward_revision")


@dataclass(slots=True)
class _Columns:
    rows: list[tuple[int, int, int]] = field(default_factory=list)
    scores: list[tuple[float, float]] = field(default_factory=list)
    prompts: dict[str, int] = field(default_factory=dict)
    failed: Counter[tuple[int, str]] = field(default_factory=Counter)
    revisions: Counter[str] = field(default_factory=Counter)

    def add(self, index: int, row: Row, before: float, after: float) -> None:
        prompt = self.prompts.setdefault(row["prompt"], len(self.prompts))
        self.rows.append((index, row["step"], prompt))
        self.scores.append((before, after))

    def both(self) -> Both:
        index, step, prompt = np.array(self.rows, dtype=np.int64).reshape(-1, 3).T
        before, after = np.array(self.scores, dtype=np.float64).reshape(-1, 2).T
        return Both(index, step, prompt, before, after)


def _unscored(files: Iterable[RolloutFile], kept: KeptScores, read: Callable[[], None]) -> Iterator[Entry]:
    """Texts without a kept score, each once."""
    seen: set[str] = set()
    for row in read_files(files, ("step", "place", "prompt", "completion")):
        read()
        key = text_key(row)
        if key not in seen and kept.get(key) is None:
            seen.add(key)
            where = f"step {row['step']}, place {row['place']}"
            yield Entry(where, {"key": key, "prompt": row["prompt"], "completion": row["completion"]})


def _stored_score(row: Row, component: str) -> float:
    if not component:
        return float(row["score"])
    scores = {each["name"]: each["score"] for each in row["components"]}
    if component not in scores:
        raise FileProblem(f"step {row['step']} has no reward named {component}; there are {', '.join(scores)}")
    return float(scores[component])
