"""What it costs to encrypt, and to know who calls: latency of one caller and throughput of many, over those without."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

from benchmarks.bench import Bench
from benchmarks.figures import Figure, Finding
from benchmarks.load import Load, Sent, Target, closed_loop
from benchmarks.paired import Contest, Run, Way, client_share, median_seconds, times_as_fast
from benchmarks.protected import Protection, make_protection, token_of
from benchmarks.serving.efficiency import CALLERS, GROUP, GROUP_CALLERS, check_computed, same_scores
from benchmarks.texts import Texts
from benchmarks.wire import method, score_requests, scores
from palate.client import Tls
from palate.client.channel import ChannelOptions, call_metadata
from palate.local_server import LocalServer

_CALLERS = {1: CALLERS, GROUP: GROUP_CALLERS}
"""Of the closed loop, by the items of a request."""

_INSECURE = "insecure"

Runs: TypeAlias = Sequence[Run[list[float]]]


@dataclass(frozen=True, slots=True)
class _Engine:
    """What is served: the server's flags, and how many texts a run has, over those of other parts."""

    flags: tuple[str, ...]
    texts: float


_ENGINES = {"null": _Engine(("--engine=fake",), 4.0), "model": _Engine((), 0.5)}
"""One that computes nothing, so that all of a request's time is the service's; and the model that is served."""


@dataclass(frozen=True, slots=True)
class _Door:
    """How a server is protected, and what its callers bring."""

    flags: Sequence[str] = ()
    tls: Tls | None = None
    token: str = ""


def security(bench: Bench) -> Iterator[Finding]:
    """Servers of the same model behind different doors, in turns."""
    doors = _doors(make_protection(bench.work))
    for name, engine in _ENGINES.items():
        with ExitStack() as stack:
            servers = {
                way: stack.enter_context(
                    bench.server(f"security-{name}-{way}", *engine.flags, *door.flags, probe_tls=door.tls)
                )
                for way, door in doors.items()
            }
            targets = {way: _target(servers[way], door) for way, door in doors.items()}
            yield from _figures(bench, name, round(engine.texts * bench.sizes.items), targets)
            for server in servers.values():
                check_computed(server)


def _doors(protection: Protection) -> dict[str, _Door]:
    return {
        _INSECURE: _Door(),
        "tls": _Door(protection.tls_flags, protection.tls),
        "token": _Door([*protection.tls_flags, *protection.token_flags], protection.tls, token_of("scorer")),
        "mtls": _Door([*protection.mtls_flags, *protection.token_flags], protection.mutual_tls("scorer")),
    }


def _target(server: LocalServer, door: _Door) -> Target:
    metadata = call_metadata(ChannelOptions(tls=door.tls, token=door.token))
    return replace(method(server, "Score"), tls=door.tls, metadata=metadata)


def _figures(bench: Bench, engine: str, texts: int, targets: Mapping[str, Target]) -> Iterator[Figure]:
    """Of one caller and of many, with 1 item and with 16."""
    for items in _CALLERS:
        for run, figure in ((_one_caller, _latency), (_many_callers, _throughput)):
            contest = Contest(
                [Way(way, partial(run, bench.load, items, target)) for way, target in targets.items()],
                lambda number: bench.dialogues.take(number, texts),
                same_scores,
            )
            runs = bench.turns(f"security: {engine}, {items} items, {figure.__name__.strip('_')}", contest)
            insecure = runs.pop(_INSECURE)
            yield from (figure(f"security/{engine}-{items}", way, secure, insecure) for way, secure in runs.items())


def _one_caller(load: Load, items: int, target: Target, texts: Texts) -> Run[list[float]]:
    """Takes as long as the median request."""
    sent = load(closed_loop, target, score_requests(texts.pairs, items), 1)
    return _run(sent, statistics.median(answer.seconds for answer in sent.answers))


def _many_callers(load: Load, items: int, target: Target, texts: Texts) -> Run[list[float]]:
    sent = load(closed_loop, target, score_requests(texts.pairs, items), _CALLERS[items])
    return _run(sent, sent.seconds)


def _run(sent: Sent, seconds: float) -> Run[list[float]]:
    return Run(seconds, scores(sent.answers), sent.cpu_seconds)


def _latency(name: str, way: str, secure: Runs, insecure: Runs) -> Figure:
    text = f"one caller: median latency, {way} / {_INSECURE}"
    beside = {"ms": 1e3 * median_seconds(secure), f"{_INSECURE}, ms": 1e3 * median_seconds(insecure)}
    return Figure(f"{name}-latency-{way}", text, times_as_fast(insecure, secure), beside=beside)


def _throughput(name: str, way: str, secure: Runs, insecure: Runs) -> Figure:
    text = f"closed loop: items/s, {way} / {_INSECURE}"
    rates = (len(runs[0].answer) / median_seconds(runs) for runs in (secure, insecure))
    beside = dict(zip(("items/s", f"{_INSECURE}, items/s"), rates, strict=True))
    beside["client CPU share"] = client_share(secure)
    return Figure(f"{name}-throughput-{way}", text, times_as_fast(secure, insecure), beside=beside)
