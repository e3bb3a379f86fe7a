"""Prompts: what completions are sampled for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trainer.data.lines import read_rows


@dataclass(frozen=True, slots=True)
class PromptRow:
    """A prompt, and the group that must stay together when data are split ("" = its own)."""

    text: str
    group: str


def read_prompts(file: Path) -> list[PromptRow]:
    """Rows {"prompt": text, "group": text (optional)}; other keys are left alone.

    Raises:
        DataError: A row without a prompt, an unreadable file.
    """
    rows = []
    for row in read_rows(file):
        text = row.text("prompt")
        if not text.strip():
            row.refuse("'prompt' is empty")
        rows.append(PromptRow(text, row.text("group", "")))
    return rows
