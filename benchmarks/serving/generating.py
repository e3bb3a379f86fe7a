"""The policy service: prompts in one call against a call for each."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from operator import eq
from typing import TypeAlias

from benchmarks.bench import Bench
from benchmarks.figures import Figure, Finding
from benchmarks.models import make_policy, texts
from benchmarks.paired import Contest, Way, timed, times_as_fast
from palate.client import PolicyClient, SamplingParams
from palate.local_server import local_server

SeededPrompts: TypeAlias = list[tuple[str, int]]
"""Prompts, each with the seed that its completion is drawn with."""

TokenIds: TypeAlias = list[tuple[int, ...]]

_PROMPTS = 16
_NEW_TOKENS = 32


def generating(bench: Bench) -> Iterator[Finding]:
    """The same tokens either way."""
    command = ("-m", "services.policy", "--model", str(make_policy(bench.work / "policy", tiny=bench.quick)))
    with (
        local_server(command, log=bench.logs / "policy.log") as server,
        PolicyClient(server.target, timeout=120.0) as client,
    ):
        one_call = Way("one call", timed(partial(_generate, client)))
        calls = Way("a call for each", timed(partial(_generate_singly, client)))
        runs = bench.turns("generating", Contest([calls, one_call], _prompts, eq))
    text = f"throughput, {_NEW_TOKENS} tokens: {_PROMPTS} prompts in one call / a call for each"
    yield Figure("generating/one-call", text, times_as_fast(runs["one call"], runs["a call for each"]))


def _prompts(number: int) -> SeededPrompts:
    return [(prompt, place) for place, prompt in enumerate(texts(_PROMPTS, 8, 64, number))]


def _generate(client: PolicyClient, prompts: SeededPrompts) -> TokenIds:
    """The tokens drawn for each prompt."""
    sampling = SamplingParams(max_new_tokens=_NEW_TOKENS, ignore_eos=True)
    given, seeds = zip(*prompts, strict=True)
    found = {one.prompt_index: one.token_ids for one in client.generate(given, sampling=sampling, seeds=seeds)}
    return [found[place] for place in range(len(prompts))]


def _generate_singly(client: PolicyClient, prompts: SeededPrompts) -> TokenIds:
    return [token_ids for one in prompts for token_ids in _generate(client, [one])]
