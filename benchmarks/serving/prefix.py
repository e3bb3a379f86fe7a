"""Best of n: a prompt that is computed once for all its completions."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from benchmarks.bench import Bench
from benchmarks.figures import Figure, Finding, Goal, exact
from benchmarks.load import closed_loop
from benchmarks.models import WORDS, make_ranker
from benchmarks.paired import Contest, Run, Way, client_share, times_as_fast
from benchmarks.wire import Pair, method, rank_request, ranked_scores, score_requests, scores

_PROMPT_TOKENS = 512
_COMPLETION_TOKENS = (64, 128)
_COMPLETIONS = 8
_TOLERANCE = 1e-2
"""Beyond it the two ways score different texts; what rounding does is a figure of its own."""


def prefix_reuse(bench: Bench) -> Iterator[Finding]:
    """Rank against a Score call for each completion, on a random decoder; its scores have an SD of 1."""
    folder = make_ranker(bench.work / "ranker", tiny=bench.quick)
    with bench.server("prefix", "--engine", "torch", model=folder) as server:

        def ranked(pairs: list[Pair]) -> Run[list[float]]:
            request = rank_request(pairs[0][0], [completion for _, completion in pairs])
            sent = bench.load(closed_loop, method(server, "Rank"), [request], 1)
            return Run(sent.seconds, ranked_scores(sent.answers), sent.cpu_seconds)

        def singly(pairs: list[Pair]) -> Run[list[float]]:
            sent = bench.load(closed_loop, method(server, "Score"), score_requests(pairs, 1), 1)
            return Run(sent.seconds, scores(sent.answers), sent.cpu_seconds)

        contest = Contest([Way("a call for each", singly), Way("Rank", ranked)], _candidates, _same)
        runs = bench.turns("prefix reuse", contest)
    shift = max(
        difference(one.answer, other.answer)
        for one, other in zip(*(runs[way.name] for way in contest.ways), strict=True)
    )
    found = times_as_fast(runs["Rank"], runs["a call for each"])
    text = f"prompt of {_PROMPT_TOKENS} tokens, {_COMPLETIONS} completions: "
    beside = {"client CPU share": client_share(runs["Rank"]), "ranked/s": 1 / runs["Rank"][0].seconds}
    yield Figure("prefix-reuse/speed", f"{text}Rank / {_COMPLETIONS} Score calls", found, "", Goal("≥", 2.5), beside)
    yield Figure("prefix-reuse/shift", f"{text}largest difference of a score", exact(shift), "SD", Goal("≤", 1e-4))


def difference(expected: list[float], found: list[float]) -> float:
    """The largest one."""
    return max(abs(a - b) for a, b in zip(expected, found, strict=True))


def _same(expected: list[float], found: list[float]) -> bool:
    return difference(expected, found) <= _TOLERANCE


def _candidates(number: int) -> list[Pair]:
    rng = Random(number)
    prompt = " ".join(rng.choices(WORDS, k=_PROMPT_TOKENS - 1))  # and the token it begins with
    lengths = [rng.randint(*_COMPLETION_TOKENS) for _ in range(_COMPLETIONS)]
    return [(prompt, " " + " ".join(rng.choices(WORDS, k=length))) for length in lengths]
