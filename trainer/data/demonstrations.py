"""Demonstrations: prompts with the completions that a policy should learn to write."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from palate.models.conversation import Content
from trainer.data.lines import read_rows


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A prompt, a text or messages, and what was answered."""

    prompt: Content
    completion: str


def read_demonstrations(file: Path) -> list[Demonstration]:
    """Rows {"prompt": text or messages, "completion": text}.

    Raises:
        DataError: A row without either, an empty completion, an unreadable file.
    """
    demonstrations = []
    for row in read_rows(file):
        completion = row.text("completion")
        if not completion.strip():
            row.refuse("'completion' is empty; there is nothing to learn from it")
        demonstrations.append(Demonstration(row.messages("prompt"), completion))
    return demonstrations
