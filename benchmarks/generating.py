"""The policy service: prompts in one call against a call for each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from operator import eq
from pathlib import Path
from typing import TypeAlias

from benchmarks.models import make_policy, texts
from benchmarks.paired import Measurement, Way
from palate.client import PolicyClient, SamplingParams
from palate.local_server import local_server

SeededPrompts: TypeAlias = list[tuple[str, int]]
"""Prompts, each with the seed that its completion is drawn with."""

TokenIds: TypeAlias = list[tuple[int, ...]]

PROMPTS = 16
NEW_TOKENS = 32


@contextmanager
def generating(folder: Path, logs: Path) -> Iterator[list[Measurement[SeededPrompts, TokenIds]]]:
    """What there is to measure, while the server runs; its model is made in `folder`."""
    command = ("-m", "services.policy", "--model", str(make_policy(folder / "policy")))
    with (
        local_server(command, log=logs / "policy.log") as server,
        PolicyClient(server.target) as client,
    ):
        one_call = Way(f"{PROMPTS} prompts in one call", partial(_generate, client))
        calls = Way("a call per prompt", partial(_generate_singly, client))
        yield [Measurement(f"Generate, {NEW_TOKENS} tokens", calls, one_call, _prompts, eq)]


def _prompts(number: int) -> SeededPrompts:
    return [(prompt, place) for place, prompt in enumerate(texts(PROMPTS, 8, 64, number))]


def _generate(client: PolicyClient, prompts: SeededPrompts) -> TokenIds:
    """The tokens drawn for each prompt."""
    sampling = SamplingParams(max_new_tokens=NEW_TOKENS, ignore_eos=True)
    given, seeds = zip(*prompts, strict=True)
    found = {one.prompt_index: one.token_ids for one in client.generate(given, sampling=sampling, seeds=seeds)}
    return [found[place] for place in range(len(prompts))]


def _generate_singly(client: PolicyClient, prompts: SeededPrompts) -> TokenIds:
    return [token_ids for one in prompts for token_ids in _generate(client, [one])]
