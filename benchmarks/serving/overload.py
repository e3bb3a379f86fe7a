"""Twice as many requests as can be answered: what is still answered in time, and what is computed in vain."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from benchmarks.bench import Bench
from benchmarks.figures import Figure, Finding, Goal
from benchmarks.load import OK, Answer, Sent, open_loop
from benchmarks.paired import estimate
from benchmarks.serving.efficiency import one_pair_requests
from benchmarks.wire import method, metrics, score_requests
from palate.local_server import LocalServer
from palate.v1 import reward_service_pb2 as reward

DEADLINE_SECONDS = 1.0
_EXCESS = 2.0
_REFUSED = ("RESOURCE_EXHAUSTED", "UNAVAILABLE")


@dataclass(frozen=True, slots=True)
class Overloaded:
    """A round.

    Attributes:
        late_share: Of the tokens that were computed, those whose item was not answered in time.
        goodput: Items answered in time per second, over the closed loop's rate.
        p99: The 99th percentile of the latency of all that was not refused, over the deadline; without an answer in
            time it is the deadline.
        refused_share: Of all requests, those refused at once.
        client_cpu: The load generator's CPU share.
        lag_seconds: By how much the latest request was sent too late.
    """

    late_share: float
    goodput: float
    p99: float
    refused_share: float
    client_cpu: float
    lag_seconds: float


def overload(bench: Bench) -> Iterator[Finding]:
    """Rounds of a closed loop, to know the rate, and of an open one at twice that rate."""
    with bench.server("overload") as server:
        rounds, resident = [], []
        for number in range(bench.sizes.overload_rounds + 1):
            closed = one_pair_requests(bench.load, server, bench.fresh_dialogues(number))
            rate = bench.sizes.items / closed.seconds
            rounds.append(_round(bench, server, number, rate))
            resident.append(_resident_bytes(server))
        del rounds[0]  # the server does not know its own speed yet
    growth = estimate([after / resident[0] for after in resident[1:]])
    beside = {
        "refused": estimate([one.refused_share for one in rounds]).value,
        "client CPU share": estimate([one.client_cpu for one in rounds]).value,
        "latest sending, s": max(one.lag_seconds for one in rounds),
    }
    late, goodput = estimate([one.late_share for one in rounds]), estimate([one.goodput for one in rounds])
    p99 = estimate([one.p99 for one in rounds])
    text = f"{_EXCESS:g} x the closed loop's rate, deadlines of {DEADLINE_SECONDS:g} s: "
    yield Figure("overload/late-compute", f"{text}tokens computed for late answers / all", late, "", Goal("≤", 0.02))
    yield Figure("overload/goodput", f"{text}answers in time / closed loop's", goodput, "", Goal("≥", 0.9), beside)
    yield Figure("overload/p99", f"{text}99th percentile of the admitted / deadline", p99, "", Goal("<", 1.0))
    yield Figure("overload/memory", f"{text}server's memory after each round / after the first", growth)


def _round(bench: Bench, server: LocalServer, number: int, rate: float) -> Overloaded:
    moments = arrivals(rate * _EXCESS, bench.sizes.overload_seconds, number)
    texts = bench.dialogues.take(number, len(moments))
    requests = score_requests(texts.pairs, 1)
    moments = moments[: len(requests)]
    before = metrics(server)["palate_reward_tokens_total/real"]
    sent = bench.load(open_loop, method(server, "Score"), requests, moments, DEADLINE_SECONDS)
    last = bench.dialogues.take(number + 1, 1)
    one_pair_requests(bench.load, server, last)  # when it is answered, everything before it is computed
    computed = metrics(server)["palate_reward_tokens_total/real"] - before - len(last.rows[0].token_ids)
    return judged(sent, computed, rate, moments)


def arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """Moments of a Poisson process; at least one."""
    rng = random.Random(seed)
    count = max(round(rate * seconds), 1)
    return list(accumulate(rng.expovariate(rate) for _ in range(count)))


def judged(sent: Sent, computed_tokens: float, rate: float, moments: Sequence[float]) -> Overloaded:
    """What a round was like.

    Args:
        sent: What the load generator saw.
        computed_tokens: Tokens that the engine computed meanwhile, without padding.
        rate: Items per second of the closed loop.
        moments: When each request was to be sent, from 0.
    """
    tokens = [_tokens(answer) for answer in sent.answers]
    admitted = [
        answer.seconds if count else max(answer.seconds, DEADLINE_SECONDS)
        for answer, count in zip(sent.answers, tokens, strict=True)
        if answer.status not in _REFUSED
    ]
    ends = [moment + answer.seconds for moment, answer in zip(moments, sent.answers, strict=True)]
    in_time = [end for end, count in zip(ends, tokens, strict=True) if count]
    return Overloaded(
        late_share=max(0.0, 1 - sum(tokens) / computed_tokens) if computed_tokens else 0.0,
        goodput=len(in_time) / max(in_time) / rate if in_time else 0.0,
        p99=_percentile(admitted or [DEADLINE_SECONDS], 0.99) / DEADLINE_SECONDS,
        refused_share=1 - len(admitted) / len(sent.answers),
        client_cpu=sent.cpu_seconds / sent.seconds,
        lag_seconds=sent.lag_seconds,
    )


def _tokens(answer: Answer) -> int:
    """Tokens of an item that was scored in time; 0 of all others."""
    if answer.status != OK:
        return 0
    (result,) = reward.ScoreResponse.FromString(answer.body).results
    return int(result.scored.token_count) if result.HasField("scored") else 0


def _percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[round(share * (len(values) - 1))]


def _resident_bytes(server: LocalServer) -> float:
    return metrics(server)["process_resident_memory_bytes"]
