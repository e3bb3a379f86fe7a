"""A policy server, and weights that fit it: ready to be sent, under one version after the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from transformers import AutoModelForCausalLM

from benchmarks.bench import Bench
from benchmarks.models import make_large_policy
from palate.client import PolicyClient, PolicyVersion, Publisher, TensorSpec, WeightsChunk
from palate.local_server import local_server
from palate.models.weights import describe_tensors, iter_chunks, untied_state_dict, weights_digest

_RUN = "benchmark"


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights in memory as they are sent; their size in bytes, how many numbers they hold, and a server for them."""

    client: PolicyClient
    right: Publisher
    specs: tuple[TensorSpec, ...]
    chunks: tuple[WeightsChunk, ...]
    digest: str
    size_bytes: int
    parameters: int

    def stage(self, step: int) -> str:
        """Sends all under a step; returns what the server calls them."""
        version = PolicyVersion(_RUN, 1, step, self.digest)
        return self.client.stage_weights(self.right.fencing_token, version, self.specs, self.chunks).staging_id

    def commit(self, staging_id: str, *, interrupt: bool = False) -> PolicyVersion:
        """Makes the server serve them."""
        return self.client.commit_weights(self.right.fencing_token, staging_id, interrupt=interrupt)[0]


@contextmanager
def served_weights(bench: Bench) -> Iterator[Weights]:
    """A server of 100 million parameters (few where it is only tried), and the same weights to publish to it."""
    folder = make_large_policy(bench.work / "large", tiny=bench.quick)
    state = untied_state_dict(AutoModelForCausalLM.from_pretrained(folder))
    entries = describe_tensors(state)
    with (
        local_server(("-m", "services.policy", "--model", str(folder)), log=bench.logs / "publish.log") as server,
        PolicyClient(server.target, timeout=300.0) as client,
    ):
        yield Weights(
            client,
            client.acquire_publisher(_RUN, 1),
            tuple(TensorSpec(e.name, e.dtype, e.shape, e.size_bytes, e.sha256) for e in entries),
            tuple(WeightsChunk(c.tensor_index, c.offset_bytes, c.data) for c in iter_chunks(state, entries)),
            weights_digest(entries),
            sum(entry.size_bytes for entry in entries),
            sum(tensor.numel() for tensor in state.values()),
        )
