"""A policy server there: what it draws is what the processor gives the same tokens, call after call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from benchmarks.models import make_story_policy, texts
from palate.client import GeneratedCompletion, PolicyClient, SamplingParams
from palate.local_server import local_server
from services.policy.engine_transformers import TransformersEngine
from tests.checks.gpu.seen import Place, Seen, timed

TOKENS = 48
PROMPTS = texts(16, 4, 40, 3)
ASKED: dict[str, Any] = {"completions_per_prompt": 4, "seeds": range(16)}
"""64 completions, as many as a server draws together."""


def policy(place: Place) -> Iterator[Seen]:
    """In the transformers engine."""
    folder = make_story_policy(place.scratch / "story", "15m", tiny=place.tiny)
    flags = ("--model", str(folder), "--device", place.device)
    with local_server(["-m", "services.policy", *flags]) as server, PolicyClient(server.target) as client:
        ask = partial(drawn, client, strict=True)
        first, again = ask(), ask()
        seconds = timed(ask)
    same = same_tokens(first, again) == len(first)
    yield Seen("policy, strict, twice", "the same tokens" if same else "other tokens", "the same", same)
    yield Seen("policy, 15m, 64 rows, speed", f"{64 * TOKENS / seconds:.0f} tokens/s", "", None)
    far = apart(logprobs_of(first), processor_logprobs(*TransformersEngine.load(folder, "float32"), first))
    yield Seen("policy, logprobs against the processor's", f"largest difference {far:.1e}", "1e-4", far <= 1e-4)


def drawn(
    client: PolicyClient, *, tokens: int = TOKENS, top_k: int = 0, strict: bool = False
) -> list[GeneratedCompletion]:
    """The 64 completions in their order, each of so many tokens."""
    sampling = SamplingParams(max_new_tokens=tokens, top_k=top_k, ignore_eos=True)
    return in_order(client.generate(PROMPTS, sampling=sampling, strict=strict, **ASKED))


def in_order(completions: Iterable[GeneratedCompletion]) -> list[GeneratedCompletion]:
    """By prompt, then by completion."""
    return sorted(completions, key=lambda each: (each.prompt_index, each.completion_index))


def same_tokens(some: Sequence[GeneratedCompletion], others: Sequence[GeneratedCompletion]) -> int:
    """How many completions are the same."""
    return sum(one.token_ids == other.token_ids for one, other in zip(some, others, strict=True))


def sequences_of(completions: Sequence[GeneratedCompletion]) -> list[tuple[Sequence[int], Sequence[int]]]:
    """(prompt ids, completion ids)."""
    return [(each.prompt_token_ids, each.token_ids) for each in completions]


def logprobs_of(completions: Sequence[GeneratedCompletion]) -> list[Sequence[float]]:
    """As they came with the tokens."""
    return [each.logprobs for each in completions]


def processor_logprobs(
    engine: TransformersEngine, weights: Any, completions: Sequence[GeneratedCompletion]
) -> list[list[float]]:
    """Of the same tokens, under weights on the processor."""
    return engine.logprobs(weights, sequences_of(completions), 1.0)


def apart(some: Sequence[Sequence[float]], others: Sequence[Sequence[float]]) -> float:
    """The largest difference."""
    return max(
        abs(mine - theirs)
        for one, other in zip(some, others, strict=True)
        for mine, theirs in zip(one, other, strict=True)
    )
