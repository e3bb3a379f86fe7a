"""What every supervised phase can be told about its optimisation."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from trainer.exposure import LOOPBACK
from trainer.phase_settings import PhaseSettings


class FitConfig(PhaseSettings):
    """Values that pretraining, fine-tuning and reward modelling have in common."""

    out: Path = Field(
        description="Folder of the run: model/, metrics.jsonl, tensorboard/, samples.jsonl, checkpoints/."
    )
    epochs: float = Field(default=1.0, gt=0, description="Passes over the data.")
    max_steps: int = Field(default=0, ge=0, description="End after so many steps; 0 = when the epochs are done.")
    batch_size: int = Field(default=32, ge=1, description="Rows a step.")
    learning_rate: float = Field(default=1e-3, gt=0, description="Peak of the learning rate (AdamW).")
    schedule: Literal["cosine", "linear", "constant"] = Field(
        default="cosine", description="The learning rate's way down after the warm-up."
    )
    warmup_share: float = Field(default=0.05, ge=0, lt=1, description="Share of the steps in which it rises from 0.")
    weight_decay: float = Field(default=0.0, ge=0, description="AdamW's weight decay.")
    max_grad_norm: float = Field(default=1.0, gt=0, description="Gradients are clipped to this norm.")
    seed: int = Field(default=0, ge=0, lt=2**31, description="Of initial weights, order of the data, and samples.")
    threads: int = Field(default=2, ge=1, description="CPU threads of a step.")
    log_every: int = Field(default=10, ge=1, description="Steps between two rows of metrics.")
    checkpoint_every: int = Field(default=0, ge=0, description="Steps between two checkpoints; 0 = none.")
    resume: bool = Field(
        default=False, description="Go on from the newest checkpoint in --out; start where there is none."
    )
    prometheus_port: int | None = Field(
        default=None, ge=0, le=65535, description="Port of /metrics; 0 = any, without it there is none."
    )
    prometheus_host: str = Field(
        default=LOOPBACK, description="Address of /metrics; 0.0.0.0 where Prometheus is on another machine."
    )
    progress: bool = Field(default=True, description="Show a progress bar and tables of samples.")
