"""Configuration of pretraining."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from trainer.fit_config import FitConfig


class PretrainConfig(FitConfig):
    """Trains a small base model and its tokenizer on plain text."""

    phase = "pretrain"

    documents: Path = Field(description='JSONL file, one {"text": "..."} a line.')
    tokenizer_texts: Path | None = Field(
        default=None,
        description="JSONL file whose text, prompt and completion the tokenizer shall know too; the model reads none.",
    )
    vocabulary: int = Field(default=1024, ge=300, description="Pieces of the tokenizer.")
    hidden_size: int = Field(default=128, ge=8, description="Width of the model.")
    layers: int = Field(default=4, ge=1, description="Its depth.")
    heads: int = Field(default=4, ge=1, description="Attention heads; must divide the width.")
    block_tokens: int = Field(default=128, ge=8, description="Longest piece of a document in one row, in tokens.")
    max_tokens: int = Field(default=256, ge=8, description="Longest sequence the model shall ever read.")
    learning_rate: float = Field(default=4e-3, gt=0, description="Peak of the learning rate (AdamW).")
    batch_size: int = Field(default=16, ge=1, description="Rows a step.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.hidden_size % (2 * self.heads):
            raise ValueError(f"hidden_size {self.hidden_size} must be a multiple of 2 x heads, here {2 * self.heads}")
        if self.block_tokens > self.max_tokens:
            raise ValueError(f"block_tokens {self.block_tokens} is more than max_tokens {self.max_tokens}")
        return self
