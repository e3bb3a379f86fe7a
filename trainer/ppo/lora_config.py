"""Whether a policy learns as a whole or through low-rank adapters."""

from __future__ import annotations

from trainer.lora_config import LoraGroup


class PolicyLoraGroup(LoraGroup):
    """Learns low-rank adapters of the policy (LoRA) and leaves its weights as they are; adapters alone are published.

    The critic, where there is one, learns as a whole. Adapters want a higher --ppo.learning-rate than whole weights.
    """
