"""Weights on their way to the replicas: what is announced, and the pieces that follow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from palate.client.types import PolicyVersion, TensorSpec, WeightsChunk
from palate.models.weights import TensorEntry, describe_tensors, iter_chunks, untied_state_dict, weights_digest


@dataclass(frozen=True, slots=True)
class Payload:
    """Weights, ready to be sent to any number of replicas; the tensors must not change while it is used."""

    version: PolicyVersion
    entries: tuple[TensorEntry, ...]
    _state: Mapping[str, Tensor] = field(repr=False)

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """What is announced."""
        return tuple(TensorSpec(e.name, e.dtype, e.shape, e.size_bytes, e.sha256) for e in self.entries)

    def chunks(self) -> Iterator[WeightsChunk]:
        """What is sent, cut from the tensors as it is asked for."""
        return (WeightsChunk(c.tensor_index, c.offset_bytes, c.data) for c in iter_chunks(self._state, self.entries))


def weights_payload(model: nn.Module, run_id: str, incarnation: int, step: int) -> Payload:
    """The weights of `model`, each tied tensor once, under a version that carries their digest."""
    state = untied_state_dict(model)
    entries = describe_tensors(state)
    return Payload(PolicyVersion(run_id, incarnation, step, weights_digest(entries)), tuple(entries), state)
