"""The file of what was drawn and scored: a row for each completion, prompt by prompt, and going on where it ends."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from palate.client import GeneratedCompletion
from trainer.best_of_n.drawing import Asked
from trainer.best_of_n.judges import Judgement, Verdict
from trainer.data.lines import DataError, Row, append_rows, read_rows, telling, without_cut_line

ROWS_FILE, CONDITIONS_FILE = "drawn.jsonl", "conditions.json"
_NO_ROW = "no row of `palate best-of-n` here"
_ANOTHER = "give another --out"


@dataclass(frozen=True, slots=True)
class Judged:
    """A completion in numbers: how many tokens it has, and both verdicts."""

    tokens: int
    proxy: Verdict
    gold: Verdict


@dataclass(frozen=True, slots=True)
class Answered:
    """A prompt that was asked for.

    Attributes:
        number: Of the prompt.
        group: What it belongs to.
        refused: Why the policy does not take it; empty where it does.
        judged: Its completions; none where it is refused, or the policy fails on it.
        failed: How the policy fails on it; empty where it does not.
    """

    number: int
    group: str
    refused: str
    judged: tuple[Judged, ...]
    failed: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a prompt: completions with two verdicts each, or why the policy refuses it or fails on it."""

    asked: Asked
    drawn: Sequence[GeneratedCompletion] = ()
    judged: Sequence[Judged] = ()
    refused: str = ""
    failed: str = ""

    def in_numbers(self) -> Answered:
        """Without texts."""
        return Answered(self.asked.number, self.asked.group, self.refused, tuple(self.judged), self.failed)


def settle_conditions(out: Path, wanted: Mapping[str, Any]) -> None:
    """Writes down what must be the same for all rows of a folder, or looks whether it is.

    Raises:
        DataError: The rows there were drawn or scored otherwise.
    """
    file, rows = out / CONDITIONS_FILE, out / ROWS_FILE
    if rows.exists() and rows.stat().st_size:
        changed = [name for name, value in _said(file).items() if wanted.get(name) != value]
        if changed:
            raise DataError(
                f"{out} holds completions with another {', '.join(changed)} ({file}); go on with the same, or give "
                "another --out"
            )
        return
    with telling(file):
        file.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")


def digest_of_prompts(asked: Sequence[Asked]) -> str:
    """Which prompts they are, in which order and groups."""
    return hashlib.sha256(json.dumps([(each.prompt.text, each.prompt.group) for each in asked]).encode()).hexdigest()


def write(out: Path, answer: Answer) -> None:
    """Adds the rows of a prompt in one write.

    Raises:
        DataError: They cannot be written.
    """
    asked = answer.asked
    place = {"number": asked.number, "prompt": asked.prompt.text, "group": asked.group}
    pairs = zip(answer.drawn, answer.judged, strict=True)
    without = {"failed": answer.failed} if answer.failed else {"refused": answer.refused}
    rows = [place | _row(*pair) for pair in pairs] or [place | without]
    with telling(out / ROWS_FILE):
        append_rows(out / ROWS_FILE, rows)


def read_done(out: Path, samples: int) -> dict[int, Answered]:
    """The prompts that are done, by number, after taking out what a stop has cut off, and what the policy failed on.

    Raises:
        DataError: The file was not written by this command.
    """
    file = out / ROWS_FILE
    if not (file.exists() and without_cut_line(file)):
        return {}
    done: dict[int, Answered] = {}
    lines, kept, is_cut = 0, set[int](), False
    for number, group in groupby(read_rows(file), lambda row: row.number("number", -1)):
        rows = list(group)
        lines += len(rows)
        if number in done or is_cut:
            rows[0].refuse(f"{_NO_ROW} (its prompt stands there before, or that before it is not whole); {_ANOTHER}")
        found = _answered(rows)
        is_cut = not (found.refused or found.failed or len(found.judged) == samples)
        if not (is_cut or found.failed):
            done[found.number] = found
            kept.update(row.line for row in rows)
    if len(kept) < lines:
        _keep_lines(file, kept)
    return done


def _row(completion: GeneratedCompletion, judged: Judged) -> dict[str, Any]:
    return {
        "completion": completion.text,
        "tokens": judged.tokens,
        "finish_reason": completion.finish_reason.value,
        "seed": completion.seed,
        "proxy": _as_json(judged.proxy),
        "gold": _as_json(judged.gold),
    }


def _said(file: Path) -> dict[str, Any]:
    try:
        said: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read, so nobody knows how {ROWS_FILE} began; give another --out") from error
    return said


def _answered(rows: Sequence[Row]) -> Answered:
    first = rows[0]
    number = first.number("number", -1)
    if number < 0 or not number.is_integer():
        first.refuse(f"{_NO_ROW} (it has no number of a prompt); {_ANOTHER}")
    refused, failed = first.text("refused", ""), first.text("failed", "")
    judged = () if refused or failed else tuple(map(_judged, rows))
    return Answered(int(number), first.text("group"), refused, judged, failed)


def _judged(row: Row) -> Judged:
    return Judged(int(row.number("tokens", 0)), _verdict(row, "proxy"), _verdict(row, "gold"))


def _as_json(verdict: Verdict) -> dict[str, Any]:
    if isinstance(verdict, str):
        return {"error": verdict}
    return {"score": verdict.score} | ({"members": verdict.members} if verdict.members else {})


def _verdict(row: Row, name: str) -> Verdict:
    found = row.values.get(name)
    if isinstance(found, dict) and isinstance(found.get("error"), str):
        return str(found["error"])
    try:
        return Judgement(float(found["score"]), tuple(map(float, found.get("members", ()))))  # type: ignore[index,union-attr]
    except (AttributeError, KeyError, TypeError, ValueError):
        row.refuse(f"{_NO_ROW} (its {name} holds neither score nor error); {_ANOTHER}")


def _keep_lines(file: Path, kept: Container[int]) -> None:
    """Takes all other lines out, in one move."""
    draft = file.with_name(f"{file.name}.draft")
    with telling(draft), file.open("rb") as stream:
        draft.write_bytes(b"".join(line for number, line in enumerate(stream, start=1) if number in kept))
        draft.replace(file)
