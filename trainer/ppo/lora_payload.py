"""Adapters on their way to the replicas, under the version of the weights that they make."""

from __future__ import annotations

import torch
from torch import nn

from palate.client.types import PolicyVersion
from palate.models.adapters import AddedTo, merged_tensors
from palate.models.weights import describe_tensors, weights_digest
from trainer.lora import adapter_scale, adapter_tensors, base_state, targets_of
from trainer.ppo.payload import Payload, rounded


class LoraPayloads:
    """Makes payloads of adapters alone.

    Their version carries the digest of the merged weights: the replica merges too, and serves these bits or refuses.

    Args:
        model: With the adapters; what they are added to must never change.
        dtype: What the replicas serve; None = the model's own.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype | None) -> None:
        self._base = rounded(base_state(model), dtype)
        self._entries = {entry.name: entry for entry in describe_tensors(self._base)}
        self._added = AddedTo(PolicyVersion(digest=weights_digest(self._entries.values())), adapter_scale(model))

    def __call__(self, model: nn.Module, run_id: str, incarnation: int, step: int) -> Payload:
        """The adapters of `model`."""
        factors = adapter_tensors(model)
        version = PolicyVersion(run_id, incarnation, step, self._digest(factors, targets_of(model)))
        return Payload(version, tuple(describe_tensors(factors)), factors, added=self._added)

    def _digest(self, factors: dict[str, torch.Tensor], targets: tuple[str, ...]) -> str:
        """Of all weights with the adapters; merged one after the other, so that no second model is held."""
        entries = dict(self._entries)
        for target in targets:
            (entries[target],) = describe_tensors(merged_tensors(self._base, factors, [target], self._added.scale))
        return weights_digest(entries.values())
