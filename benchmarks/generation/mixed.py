"""Tokens a second, and how long short completions take, with equal lengths and with a long one among short ones.

A call that is `strict` is drawn in a batch of its own to its end, before the next: the loop over whole batches. A call
that is not shares its batch, and each completion that ends makes room for the next.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from benchmarks.bench import Bench
from benchmarks.figures import Figure, Finding, Goal
from benchmarks.models import make_story_policy, texts
from benchmarks.paired import Contest, Inputs, Rounds, Run, Way, estimate, median_seconds, times_as_fast
from benchmarks.wire import metrics
from palate.client import PolicyClient, SamplingParams
from palate.local_server import LocalServer, local_server

_ROWS = 64
_EQUAL = 48
_LONG = 256
_SHORT_CALLS = 12
_IN_A_CALL = 8
_SHORTEST, _SPREAD = 16, 32
_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """A call: one completion of so many tokens for each prompt."""

    prompts: tuple[str, ...]
    tokens: int


@dataclass(frozen=True, slots=True)
class Got:
    """What calls gave.

    Attributes:
        tokens: Each call's, in the order of its prompts.
        seconds: How long each call took from the beginning of all.
        cpu_seconds: Of the server.
    """

    tokens: tuple[tuple[tuple[int, ...], ...], ...]
    seconds: tuple[float, ...]
    cpu_seconds: float


Calls: TypeAlias = Sequence[Wanted]


def equal(number: int) -> Calls:
    """One call, all completions of one length, as many as a batch takes."""
    return [Wanted(tuple(texts(_ROWS, 8, 16, number)), _EQUAL)]


def short(number: int) -> Calls:
    """Calls of some completions each, whose lengths differ from call to call."""
    prompts = iter(texts(_SHORT_CALLS * _IN_A_CALL, 8, 16, number))
    lengths = [_SHORTEST + _SPREAD * place // (_SHORT_CALLS - 1) for place in range(_SHORT_CALLS)]
    return [Wanted(tuple(itertools.islice(prompts, _IN_A_CALL)), length) for length in lengths]


def mixed(number: int) -> Calls:
    """One long completion, and the short ones behind it."""
    first, _ = texts(2, 16, 16, -1 - number)
    return [Wanted((first,), _LONG), *short(number)]


def generation(bench: Bench, shape: str) -> Iterator[Finding]:
    """Both loops on equal lengths and on mixed ones, then short calls with and without the long one."""
    folder = make_story_policy(bench.work / shape, shape, tiny=bench.quick)
    command = ("-m", "services.policy", "--model", str(folder), "--max-batch-rows", str(_ROWS))
    with (
        local_server(command, log=bench.logs / f"generation-{shape}.log") as server,
        PolicyClient(server.target, timeout=_SECONDS) as client,
        ThreadPoolExecutor(_SHORT_CALLS + 1) as callers,
    ):
        draw = partial(_draw, server, client, callers)

        def turns(title: str, contest: Contest[Inputs, Got]) -> Rounds[Got]:
            return bench.turns(f"{shape}: {title}", contest, bench.sizes.rounds // 2)

        whole, shared = Way("whole", partial(draw, strict=True)), Way("shared", partial(draw, strict=False))
        runs = turns("equal lengths", Contest([whole, shared], equal, _same))
        yield _faster(bench, f"{shape}/equal", f"{_ROWS} completions of {_EQUAL} tokens in one call", runs, 0.95)
        runs = turns("mixed lengths", Contest([whole, shared], mixed, _same))
        text = f"a call for {_LONG} tokens, {_SHORT_CALLS} calls for {_IN_A_CALL} completions of 16 to 48"
        yield _faster(bench, f"{shape}/mixed", text, runs, 1.0)
        yield _sooner(bench, shape, runs)
        free: Way[int, Got] = Way("free", lambda number: draw(short(number), strict=False))
        beside: Way[int, Got] = Way("beside", lambda number: draw(mixed(number), strict=False))
        yield _unhindered(bench, shape, turns("short calls", Contest([free, beside], int, _any)))


def _draw(
    server: LocalServer, client: PolicyClient, callers: ThreadPoolExecutor, calls: Calls, *, strict: bool
) -> Run[Got]:
    """All calls at once; the first is there before the others."""
    begin, cpu = time.perf_counter(), _cpu_seconds(server)

    def call(wanted: Wanted) -> tuple[tuple[tuple[int, ...], ...], float]:
        sampling = SamplingParams(max_new_tokens=wanted.tokens, ignore_eos=True)
        seeds = range(len(wanted.prompts))
        found = {
            one.prompt_index: one.token_ids
            for one in client.generate(wanted.prompts, sampling=sampling, seeds=seeds, strict=strict)
        }
        return tuple(found[place] for place in seeds), time.perf_counter() - begin

    tokens, seconds = zip(*callers.map(call, calls), strict=True)
    return Run(max(seconds), Got(tokens, seconds, _cpu_seconds(server) - cpu))


def _cpu_seconds(server: LocalServer) -> float:
    return metrics(server)["process_cpu_seconds_total"]


def _same(one: Got, other: Got) -> bool:
    return one.tokens == other.tokens


def _any(one: Got, other: Got) -> bool:
    """Whether the short calls gave the same."""
    return one.tokens[-_SHORT_CALLS:] == other.tokens[-_SHORT_CALLS:]


def _short_seconds(run: Run[Got]) -> float:
    return statistics.median(run.answer.seconds[-_SHORT_CALLS:])


def _faster(bench: Bench, name: str, text: str, runs: Rounds[Got], least: float) -> Figure:
    drawn = {way: sum(len(ids) for call in found[0].answer.tokens for ids in call) for way, found in runs.items()}
    cpu = [w.answer.cpu_seconds / s.answer.cpu_seconds for w, s in zip(runs["whole"], runs["shared"], strict=True)]
    return Figure(
        f"generation/{name}",
        f"tokens a second, shared batches / whole ones: {text}",
        times_as_fast(runs["shared"], runs["whole"]),
        goal=None if bench.quick else Goal("≥", least),
        beside={
            "the same by the server's CPU time": statistics.median(cpu),
            **{f"{way}, tokens/s": drawn[way] / median_seconds(runs[way]) for way in runs},
        },
    )


def _sooner(bench: Bench, shape: str, runs: Rounds[Got]) -> Figure:
    ratios = [_short_seconds(w) / _short_seconds(s) for w, s in zip(runs["whole"], runs["shared"], strict=True)]
    return Figure(
        f"generation/{shape}/short-sooner",
        "median time of the short calls behind a long one, whole batches / shared ones",
        estimate(ratios),
        goal=None if bench.quick else Goal("≥", 1.0),
    )


def _unhindered(bench: Bench, shape: str, runs: Rounds[Got]) -> Figure:
    pairs = zip(runs["beside"], runs["free"], strict=True)
    return Figure(
        f"generation/{shape}/short-unhindered",
        "median time of the short calls in shared batches, behind a long one / without it",
        estimate([_short_seconds(beside) / _short_seconds(free) for beside, free in pairs]),
        goal=None if bench.quick else Goal("≤", 1.1),
    )
