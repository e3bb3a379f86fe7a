"""Configuration of supervised fine-tuning."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from trainer.fit_config import FitConfig


class SftConfig(FitConfig):
    """Fine-tunes a language model on demonstrations: what to write, and where to stop."""

    phase = "sft"

    model: Path = Field(description="Folder of the causal language model to start from.")
    data: Path = Field(description='JSONL file, one {"prompt": "...", "completion": "..."} a line.')
    template: Literal["auto", "chat", "join"] = Field(
        default="auto",
        description='How prompts are put: "chat" = the chat template, "join" = as it is, "auto" = chat if it has one.',
    )
    chat_template: Path | None = Field(
        default=None, description="A Jinja chat template for a tokenizer without one, or instead of its own."
    )
    max_tokens: int = Field(
        default=0, ge=0, description="Longest demonstration in tokens, longer ones are left out; 0 = the model's limit."
    )
    held_out_share: float = Field(
        default=0.05, ge=0, lt=1, description="Share of the prompts whose loss is only measured."
    )
    samples: int = Field(default=4, ge=0, le=100, description="Completions that are sampled and shown at the end.")
    sample_tokens: int = Field(default=64, ge=1, description="Longest of these, in tokens, within the model's limit.")
