"""Prompts: what completions are sampled for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trainer.data.lines import read_rows

MAX_PROMPTS = 1_000_000
"""In one file; all of them are held in memory, PPO's as token ids too."""


@dataclass(frozen=True, slots=True)
class PromptRow:
    """A prompt, and the group that must stay together when data are split ("" = its own)."""

    text: str
    group: str


def read_prompts(file: Path) -> list[PromptRow]:
    """Rows {"prompt": text, "group": text (optional)}; other keys are left alone.

    Raises:
        DataError: A row without a prompt, an unreadable file, too many rows; the message names the place.
    """
    rows = []
    for row in read_rows(file, MAX_PROMPTS):
        text = row.text("prompt")
        if not text.strip():
            row.refuse("'prompt' is empty; give it text, or take the row out")
        rows.append(PromptRow(text, row.text("group", "")))
    return rows
