"""A policy server in vLLM: its logprobs are the processor's, before and after other weights came, and between."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.models import make_policy
from palate.client import CallError, GeneratedCompletion, PolicyClient, SamplingParams
from palate.local_server import ServerStartError, local_server
from services.policy.engine_transformers import TransformersEngine
from tests.checks.gpu.policy import (
    ASKED,
    PROMPTS,
    TOKENS,
    apart,
    drawn,
    in_order,
    logprobs_of,
    processor_logprobs,
    same_tokens,
    sequences_of,
)
from tests.checks.gpu.seen import Place, Seen, timed
from trainer.ppo.payload import Payload, weights_payload

_TOLERANCE = 1e-3
"""Of logprobs in float32, in nats."""

_ROWS = 64
_LONG = 300
"""Tokens of completions that something happens to before they have ended."""

_SAMPLING = SamplingParams(max_new_tokens=_LONG, ignore_eos=True)

_STEPS = 200
"""Of a decode: more than short completions need, fewer than are left of the long ones before them."""


@dataclass(frozen=True, slots=True)
class Reference:
    """The served model on the processor, in float32: its weights, others, and these as they are published."""

    engine: TransformersEngine
    weights: Any
    others: Any
    payload: Payload

    def logprobs(self, completions: Sequence[GeneratedCompletion]) -> list[list[float]]:
        """Under the weights that drew each token, as the completions say."""
        before = processor_logprobs(self.engine, self.weights, completions)
        after = processor_logprobs(self.engine, self.others, completions)
        cuts = [self._first_of_the_others(each) for each in completions]
        return [old[:cut] + new[cut:] for old, new, cut in zip(before, after, cuts, strict=True)]

    def _first_of_the_others(self, completion: GeneratedCompletion) -> int:
        spans = completion.policy_versions
        return next((span.first_token for span in spans if span.version == self.payload.version), _LONG)


def policy_in_vllm(place: Place) -> Iterator[Seen]:
    """In vLLM, beside the transformers engine."""
    if importlib.util.find_spec("vllm") is None:
        yield Seen("policy in vLLM", "vLLM is not installed", "", None)
        return
    torch.cuda.empty_cache()  # vLLM asks for nearly all of the memory
    folder = make_policy(place.scratch / "policy")  # the tiny one's heads are too small for vLLM
    with _served(folder, "--device", place.device) as client:
        greedy = drawn(client, top_k=1)
        yield _speed("transformers, float32", client)
    for dtype, flags in (("float32", ("--eager",)), ("bfloat16", ())):
        try:
            with _served(folder, "--engine", "vllm", "--dtype", dtype, *flags) as client:
                yield from _checked(client, dtype, greedy, _reference(folder, dtype))
        except (ServerStartError, CallError) as error:
            yield Seen(f"vLLM, {dtype}", f"{type(error).__name__}: {error}", "it answers", False)


@contextmanager
def _served(folder: Path, *flags: str) -> Iterator[PolicyClient]:
    command = ("-m", "services.policy", "--model", str(folder), *flags)
    with local_server(command, ready_seconds=300.0) as server, PolicyClient(server.target) as client:
        yield client


def _reference(folder: Path, dtype: str) -> Reference:
    """The others are further from the weights than rounding is; the server takes them in its number format."""
    engine, weights = TransformersEngine.load(folder, "float32")
    draws = torch.Generator().manual_seed(0)
    others = engine.build(
        {
            name: tensor + 0.2 * tensor.std() * torch.randn(tensor.shape, generator=draws)
            for name, tensor in engine.tensors(weights).items()
        }
    )
    return Reference(engine, weights, others, weights_payload(others, "check", 1, 1, getattr(torch, dtype)))


def _checked(
    client: PolicyClient, dtype: str, greedy: Sequence[GeneratedCompletion], reference: Reference
) -> Iterator[Seen]:
    """All that is asked of a server; the last thing changes its weights."""
    name = f"vLLM, {dtype}"
    first = drawn(client)
    expected = reference.logprobs(first)
    judged = partial(_agreement, dtype)
    yield judged("logprobs", logprobs_of(first), expected)
    read = client.compute_logprobs(sequences_of(first), tokenizer_digest=client.policy_info().tokenizer_digest)
    yield judged("ComputeLogprobs", read.logprobs, expected)
    yield _same(f"{name}, the same seeds again", first, drawn(client))
    yield _same(f"{name}, top_k = 1, as in transformers", greedy, drawn(client, top_k=1))
    yield _speed(name, client)
    yield _cancelled(f"{name}, rows of a call that was left", client)
    followed = _interrupted(client, reference.payload)
    within = sum(0 < each.policy_versions[-1].first_token < _LONG for each in followed)
    yield Seen(f"{name}, completions that other weights went on with", f"{within} of {_ROWS}", "one", within > 0)
    yield judged("their logprobs", logprobs_of(followed), reference.logprobs(followed))
    after = drawn(client)
    yield judged("logprobs of other weights", logprobs_of(after), reference.logprobs(after))
    same = same_tokens(first, after)
    yield Seen(f"{name}, other weights, same completions", f"{same} of {_ROWS}", "not all", same < _ROWS)


def _agreement(dtype: str, what: str, found: Sequence[Sequence[float]], expected: Sequence[Sequence[float]]) -> Seen:
    """Judged in float32; how far bfloat16 moves a logprob depends on the model."""
    far = apart(found, expected)
    bar, held = (f"{_TOLERANCE:g}", far <= _TOLERANCE) if dtype == "float32" else ("", None)
    return Seen(f"vLLM, {dtype}, {what}", f"largest difference {far:.1e}", bar, held)


def _same(what: str, some: Sequence[GeneratedCompletion], others: Sequence[GeneratedCompletion]) -> Seen:
    return Seen(what, f"{same_tokens(some, others)} of {len(some)} completions are the same", "", None)


def _speed(what: str, client: PolicyClient) -> Seen:
    """The best of two passes, after one that warms up."""
    seconds = [timed(lambda: drawn(client)) for _ in range(3)][1:]
    return Seen(f"policy, 28m, 64 rows, {what}, speed", f"{_ROWS * TOKENS / min(seconds):.0f} tokens/s", "", None)


def _cancelled(what: str, client: PolicyClient) -> Seen:
    """A call takes all places and is left; the next one is answered before that one could have ended."""
    left = client.generate_tokens(PROMPTS, sampling=_SAMPLING, **ASKED)
    next(left)
    begin = client.policy_info().decode_steps
    left.close()
    drawn(client, tokens=8)
    steps = client.policy_info().decode_steps - begin
    return Seen(what, f"make room for others within {steps} steps", f"{_STEPS}", steps <= _STEPS)


def _interrupted(client: PolicyClient, payload: Payload) -> list[GeneratedCompletion]:
    """Completions in whose midst the weights are committed."""
    right = client.acquire_publisher(payload.version.run_id, payload.version.incarnation)
    staged = client.stage_weights(right.fencing_token, payload.version, payload.tensors(), payload.chunks())
    running = client.generate_tokens(PROMPTS, sampling=_SAMPLING, **ASKED)
    early = next(running)
    client.commit_weights(right.fencing_token, staged.staging_id, interrupt=True)
    return in_order(event for event in (early, *running) if isinstance(event, GeneratedCompletion))
