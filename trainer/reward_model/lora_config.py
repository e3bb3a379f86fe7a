"""Whether a reward model learns as a whole or through low-rank adapters."""

from __future__ import annotations

from pydantic import Field

from trainer.lora_config import LoraGroup


class RewardLoraGroup(LoraGroup):
    """Learns low-rank adapters of the backbone (LoRA) and leaves its weights as they are; the head learns as a whole.

    So does what a checkpoint lacks, e.g. an encoder's pooler. model/ has the adapters merged into its weights. Adapters
    want a higher --learning-rate than whole weights, e.g. 2e-4.
    """

    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="Share of an adapter's inputs that are left out in a training step."
    )
