"""Configuration of reward-model training."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from trainer.fit_config import FitConfig


class RewardTrainConfig(FitConfig):
    """Trains a reward model on comparisons (Bradley–Terry) and measures it on groups it has not seen."""

    model: Path = Field(
        description="Folder to start from: a causal language model, an encoder, or a reward model to train further."
    )
    data: Path = Field(
        description='JSONL or JSONL.gz: {"prompt", "a", "b", "label"} or {"prompt", "chosen", "rejected"} a line.'
    )
    held_out: Path | None = Field(
        default=None, description="Comparisons to measure on; none = whole groups are taken out of the data."
    )
    held_out_share: float = Field(default=0.1, gt=0, lt=1, description="Share of the data that is taken out for that.")
    template: Literal["auto", "chat", "pair", "join"] = Field(
        default="auto",
        description='Prompt and completion as "chat" template, encoder "pair", or joined text; "auto" = what fits.',
    )
    max_tokens: int = Field(default=0, ge=0, description="Longest input in tokens; 0 = the model's limit.")
    truncation: Literal["reject", "left", "right"] = Field(
        default="reject", description="Longer inputs: leave the comparison out, cut the oldest or the newest tokens."
    )
    ties: Literal["soft", "drop"] = Field(
        default="soft", description='Ties: learn them as a preference of one half ("soft"), or leave them out.'
    )
    margin: float = Field(
        default=0.0, ge=0, description="By how much the preferred one should win, where a row has no margin."
    )
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5, description="Share of labels taken to be wrong.")
    centring: float = Field(default=0.0, ge=0, description="Weight of the penalty that keeps scores around 0.")
    patience: int = Field(
        default=0, ge=0, description="Epochs without a lower loss on a part of the training data; 0 = to the end."
    )
    samples: int = Field(default=4, ge=0, le=100, description="Held-out comparisons that are shown at the end.")
    batch_size: int = Field(default=16, ge=1, description="Comparisons a step.")
    learning_rate: float = Field(default=5e-5, gt=0, description="Peak of the learning rate (AdamW).")
