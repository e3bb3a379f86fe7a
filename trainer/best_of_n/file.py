"""The file of what was drawn and scored: a row for each completion, prompt by prompt, and going on where it ends."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from palate.client import GeneratedCompletion
from trainer.best_of_n.drawing import Asked
from trainer.best_of_n.judges import Judgement, Verdict
from trainer.data.lines import DataError, Row, append_rows, read_rows, telling, without_cut_line

ROWS_FILE, CONDITIONS_FILE = "drawn.jsonl", "conditions.json"
_NO_ROW = "no row of `palate best-of-n` here"


@dataclass(frozen=True, slots=True)
class Judged:
    """A completion in numbers: how many tokens it has, and both verdicts."""

    tokens: int
    proxy: Verdict
    gold: Verdict


@dataclass(frozen=True, slots=True)
class Answered:
    """A prompt that is done.

    Attributes:
        number: Of the prompt.
        group: What it belongs to.
        refused: Why the policy does not take it; empty where it does.
        judged: Its completions; none where it is refused.
    """

    number: int
    group: str
    refused: str
    judged: tuple[Judged, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a prompt: completions, a pair of verdicts for each, or why the policy does not take it."""

    asked: Asked
    drawn: Sequence[GeneratedCompletion] = ()
    judged: Sequence[Judged] = ()
    refused: str = ""

    def in_numbers(self) -> Answered:
        """Without texts."""
        return Answered(self.asked.number, self.asked.group, self.refused, tuple(self.judged))


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
    rows = [place | _row(*pair) for pair in pairs] or [place | {"refused": answer.refused}]
    with telling(out / ROWS_FILE):
        append_rows(out / ROWS_FILE, rows)


def read_done(out: Path, samples: int) -> list[Answered]:
    """The prompts that are done, in their order, after taking out what a stop has cut off.

    Raises:
        DataError: The file was not written by this command.
    """
    file = out / ROWS_FILE
    if not (file.exists() and without_cut_line(file)):
        return []
    done: list[Answered] = []
    lines, is_cut = 0, False
    for number, group in groupby(read_rows(file), lambda row: row.number("number", -1)):
        rows = list(group)
        if number != len(done) or is_cut:
            rows[0].refuse(f"{_NO_ROW} (a prompt before it is missing, or not whole); give another --out")
        found = _answered(len(done), rows)
        if is_cut := not (found.refused or len(found.judged) == samples):
            continue
        done.append(found)
        lines += len(rows)
    _keep_lines(file, lines)
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


def _answered(number: int, rows: Sequence[Row]) -> Answered:
    group, refused = rows[0].text("group"), rows[0].text("refused", "")
    return Answered(number, group, refused, () if refused else tuple(map(_judged, rows)))


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
        row.refuse(f"{_NO_ROW} (its {name} holds neither score nor error); give another --out")


def _keep_lines(file: Path, count: int) -> None:
    """Cuts the file after so many lines."""
    with file.open("rb+") as stream:
        stream.truncate(sum(len(line) for line in islice(stream, count)))
