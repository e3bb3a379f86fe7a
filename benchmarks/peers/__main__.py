"""`python -m benchmarks.peers`: our throughput over that of other servers of one model; `make peers`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from benchmarks import command
from benchmarks.bench import Bench, Part
from benchmarks.figures import Beside, Figure, Finding, Goal
from benchmarks.load import OK, Target, closed_loop
from benchmarks.paired import Contest, Run, Way, client_share, median_seconds, times_as_fast
from benchmarks.peers.processes import PEERS, Peer, environment_of, running
from benchmarks.serving.efficiency import CALLERS, check_computed, one_pair_requests, same_scores
from benchmarks.texts import Texts
from benchmarks.wire import Unanswered
from palate.local_server import LocalServer

_SCREENING_ROUNDS = 2
_LONG, _SHORT = "long", "short"


def against(peer: Peer, bench: Bench) -> Iterator[Finding]:
    """Both kinds of text, each against the peer at its quickest."""
    interpreter = environment_of(peer, bench.stays / "peers-env")
    best = _screened(peer, interpreter, bench)
    with bench.server(f"peers-{peer.name}") as ours:
        for kind, batch_size in best.items():
            with running(peer, interpreter, bench, batch_size) as theirs:
                yield _compared(peer, bench, kind, ours, theirs, batch_size)
        check_computed(ours)


def _screened(peer: Peer, interpreter: Path, bench: Bench) -> Mapping[str, int]:
    """For each kind of text the batch size with which the peer is quickest."""
    seconds: dict[str, dict[int, float]] = {_LONG: {}, _SHORT: {}}
    for batch_size in peer.batch_sizes:
        with running(peer, interpreter, bench, batch_size) as target:
            for kind, found in seconds.items():
                contest = Contest(
                    [Way("", partial(_send, peer, bench, target))], partial(_texts, bench, kind), same_scores
                )
                runs = bench.turns(f"{peer.name}, {batch_size}, {kind} texts", contest, _SCREENING_ROUNDS)
                found[batch_size] = median_seconds(runs[""])
    return {kind: min(found, key=found.__getitem__) for kind, found in seconds.items()}


def _compared(peer: Peer, bench: Bench, kind: str, ours: LocalServer, theirs: Target, batch_size: int) -> Figure:
    ways = [
        Way(peer.name, partial(_send, peer, bench, theirs)),
        Way("palate", partial(one_pair_requests, bench.load, ours)),
    ]
    texts = _kinds(bench)[kind]
    runs = bench.turns(
        f"palate against {peer.name}, {kind} texts", Contest(ways, partial(_texts, bench, kind), same_scores)
    )
    beside: Beside = {
        "items/s": bench.sizes.items / median_seconds(runs["palate"]),
        "theirs": bench.sizes.items / median_seconds(runs[peer.name]),
        "client CPU share": client_share(runs["palate"]),
        "with theirs": client_share(runs[peer.name]),
        "their batch size" if peer.batches else "at once": str(batch_size),
        "mean tokens": texts.mean_tokens,
    }
    text = f"throughput, {CALLERS} callers, one {kind} pair a request: palate / {peer.name}"
    found = times_as_fast(runs["palate"], runs[peer.name])
    return Figure(f"{peer.name}/{kind}", text, found, goal=Goal("≥", _goal(peer, kind)), beside=beside)


def _goal(peer: Peer, kind: str) -> float:
    if peer.batches:
        return 1.5
    return 1.0 if kind == _LONG else 1.3


def _kinds(bench: Bench) -> Mapping[str, Texts]:
    return {_LONG: bench.dialogues, _SHORT: bench.short_texts}


def _texts(bench: Bench, kind: str, number: int) -> Texts:
    return _kinds(bench)[kind].take(number, bench.sizes.items)


def _send(peer: Peer, bench: Bench, target: Target, texts: Texts) -> Run[list[float]]:
    sent = bench.load(closed_loop, target, [peer.request(pair) for pair in texts.pairs], CALLERS)
    if failed := sorted({answer.status for answer in sent.answers} - {OK}):
        raise Unanswered(f"{peer.name} answered with {', '.join(failed)}")
    return Run(sent.seconds, [peer.score(answer.body) for answer in sent.answers], sent.cpu_seconds)


PARTS: Mapping[str, Part] = {peer.name: partial(against, peer) for peer in PEERS}


def main() -> None:
    """Compares with all peers, or those that are named."""
    command.main("python -m benchmarks.peers", PARTS)


if __name__ == "__main__":
    main()
