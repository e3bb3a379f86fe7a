"""What tests of the policy service need: weights as a trainer publishes them, and logprobs to compare with."""

from collections.abc import Iterable

import torch

from palate.client import GeneratedCompletion, PolicyClient, PolicyVersion, SamplingParams, TensorSpec, WeightsChunk
from palate.models.weights import TensorEntry, describe_tensors, iter_chunks, untied_state_dict, weights_digest


def weights_of(model: torch.nn.Module, chunk_bytes: int = 10_000) -> tuple[list[TensorSpec], list[WeightsChunk], str]:
    """A model's tensors as they are announced, their chunks, and their digest."""
    state = untied_state_dict(model)
    entries = describe_tensors(state)
    specs = [TensorSpec(e.name, e.dtype, e.shape, e.size_bytes, e.sha256) for e in entries]
    chunks = [WeightsChunk(c.tensor_index, c.offset_bytes, c.data) for c in iter_chunks(state, entries, chunk_bytes)]
    return specs, chunks, weights_digest(entries)


def digest_of(specs: Iterable[TensorSpec]) -> str:
    """The digest that belongs to tensors as they are announced."""
    return weights_digest(TensorEntry(s.name, s.dtype, s.shape, s.size_bytes, s.sha256) for s in specs)


def publish(
    client: PolicyClient, model: torch.nn.Module, run_id: str, step: int, *, interrupt: bool = False
) -> PolicyVersion:
    """Stages and commits a model's weights as incarnation 1 of a run; returns what is served then."""
    specs, chunks, digest = weights_of(model)
    token = client.acquire_publisher(run_id, 1).fencing_token
    staged = client.stage_weights(token, PolicyVersion(run_id, 1, step, digest), specs, chunks)
    return client.commit_weights(token, staged.staging_id, interrupt=interrupt)[0]


def full_forward(model: torch.nn.Module, completion: GeneratedCompletion, temperature: float = 1.0) -> list[float]:
    """Logprobs of a completion's tokens from one forward pass over all of it, (T,)."""
    ids = completion.token_ids
    with torch.inference_mode():
        logits = model(torch.tensor([[*completion.prompt_token_ids, *ids]])).logits[0]
    logits = logits[len(completion.prompt_token_ids) - 1 : -1] / temperature
    logprobs: list[float] = logits.log_softmax(-1)[range(len(ids)), list(ids)].tolist()
    return logprobs


def normal_call(client: PolicyClient) -> GeneratedCompletion:
    """The same short completion each time, as long as the same weights are served."""
    sampling = SamplingParams(max_new_tokens=4, ignore_eos=True)
    (completion,) = client.generate(["Once upon a time"], sampling=sampling, seeds=[5])
    return completion
