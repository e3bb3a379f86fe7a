"""Does the signal come before the latency, does an autoscaler settle? `python -m tests.checks.ops_autoscaling`.

Real servers whose engine takes the same time for every batch; the signal is what their metrics show: tokens that wait
and tokens that are computed. First a ramp beyond what one replica can do; then Kubernetes' own algorithm (`autoscaler`)
with time shortened fifteenfold: a look every second, an average over eight, replicas that join three seconds after they
were asked for. All servers run from the begin; what is scaled is which of them are called.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from palate.client import AsyncRewardClient
from tests.checks.autoscaler import Rules, State, decide, turns
from tests.checks.ramp import Calls, Profile, follow, rate
from tests.checks.service import Service
from tests.tiny_models import make_tiny_reward

BATCH_SECONDS, BATCH_ITEMS = 0.25, 4
CAPACITY = BATCH_ITEMS / BATCH_SECONDS
"""Calls a second of one replica."""

UTILISATION = 0.6
_WAITING = 1.5
"""Items in a replica over those being computed: an item waits for half of the batch before its own."""

MOST = 7
_FLAGS = (
    *("--engine", "fake", "--lanes", "1", "--cache-items", "0", "--no-deduplicate"),
    *("--min-batch-seconds", str(BATCH_SECONDS), "--max-batch-items", str(BATCH_ITEMS)),
)

RAMP: Profile = ((0, 2), (12, 2), (32, 1.75 * CAPACITY), (36, 1.75 * CAPACITY), (44, 2), (64, 2))
DAY: Profile = ((0, 4), (12, 4), (42, 44), (140, 44), (155, 4), (265, 4))
_LOOK, _AVERAGE, _JOIN = 1.0, 8.0, 3.0
_STEADY = 30.0
"""Seconds before the end of each plateau in which replicas may take one step at most: the signal is four samples of a
random number, and what noise has added stays until the window is over."""

_SLOW = 2.0
"""Latency counts as risen from so many times its p95 before the ramp."""


@dataclass
class Series:
    """Looks at the replicas, one a second."""

    at: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)
    waiting: list[float] = field(default_factory=list)
    running: list[float] = field(default_factory=list)
    signal: list[float] = field(default_factory=list)
    p95: list[float | None] = field(default_factory=list)
    replicas: list[int] = field(default_factory=list)


@contextmanager
def services(folder: Path, count: int) -> Iterator[list[Service]]:
    """So many replicas of one model."""
    model = make_tiny_reward(folder / "model", "encoder", 0)
    with ExitStack() as stack:
        found = []
        for number in range(count):
            command = ["-m", "services.reward", "--model", str(model), *_FLAGS]
            found.append(Service(f"replica {number}", command, folder / f"{number}.log"))
            stack.callback(found[-1].close)
        yield found


async def item_tokens(service: Service) -> int:
    """Of the texts that the load sends."""
    async with AsyncRewardClient(service.target) as client:
        reply = await client.score(["Is this text honest?"], ["Text number 00000000."])
        return int(reply.results[0].token_count)


async def watched(
    replicas: Sequence[Service], profile: Profile, scaled: Callable[[float, float], int], seed: int
) -> tuple[Series, Calls]:
    """The load of a profile, a look every second; `scaled` says of (time, signal) how many replicas there shall be."""
    series, calls, active, joining = Series(), Calls(), [1], list[tuple[float, int]]()
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(AsyncRewardClient(each.target)) for each in replicas]
        load = asyncio.create_task(follow(profile, lambda: clients[: active[0]], calls, seed))
        begin = time.monotonic()
        while not load.done():
            await asyncio.wait([load], timeout=_LOOK)
            now = time.monotonic() - begin
            _look(series, await asyncio.gather(*(asyncio.to_thread(_tokens, each) for each in replicas)), now)
            series.rate.append(rate(profile, now))
            series.p95.append(calls.p95(now - _AVERAGE, now))
            wanted = scaled(now, series.signal[-1])
            joining = [(at, count) for at, count in joining if count <= wanted]
            if wanted > max([active[0], *(count for _, count in joining)]):
                joining.append((now + _JOIN, wanted))
            active[0] = min(max([active[0], *(count for at, count in joining if at <= now)]), wanted)
            series.replicas.append(active[0])
        await load
    return series, calls


def _tokens(service: Service) -> tuple[float, float]:
    return service.samples("palate_reward_queue_tokens"), service.samples("palate_reward_running_tokens")


def _look(series: Series, seen: Sequence[tuple[float, float]], now: float) -> None:
    """Adds up the replicas; the signal is the mean over `_AVERAGE` seconds."""
    series.at.append(now)
    series.waiting.append(sum(waiting for waiting, _ in seen))
    series.running.append(sum(running for _, running in seen))
    recent = [w + r for at, w, r in zip(series.at, series.waiting, series.running, strict=True) if at > now - _AVERAGE]
    series.signal.append(sum(recent) / len(recent))


def ramp_findings(series: Series, calls: Calls, target: float) -> dict[str, Any]:
    """When the signal crossed its target, and when the latency rose."""
    before = calls.p95(2.0, RAMP[1][0])
    assert before is not None
    crossed = next((at for at, signal in zip(series.at, series.signal, strict=True) if signal > target), None)
    slow = next((at for at, p95 in zip(series.at, series.p95, strict=True) if (p95 or 0.0) > _SLOW * before), None)
    return {
        "p95_before": before,
        "signal_crossed": crossed,
        "latency_rose": slow,
        "lead_seconds": None if crossed is None or slow is None else slow - crossed,
        "signal_at_end": series.signal[-1] / target,
        "lost": len(calls.failures),
        "ok": crossed is not None
        and slow is not None
        and crossed < slow
        and series.signal[-1] < target
        and not calls.failures,
    }


def day_findings(series: Series, calls: Calls, state: State) -> dict[str, Any]:
    """Whether the autoscaler settled on both plateaus, turned once, and kept the latency."""
    plateaus = {"high": (DAY[3][0] - _STEADY, DAY[3][0]), "low": (DAY[-1][0] - _STEADY, DAY[-1][0])}
    counts = {
        name: sorted({n for at, n in zip(series.at, series.replicas, strict=True) if begin <= at < end})
        for name, (begin, end) in plateaus.items()
    }
    p95 = calls.p95(*plateaus["high"])
    before = calls.p95(2.0, DAY[1][0])
    return {
        "replicas": counts,
        "changes": [(round(at, 1), each) for at, each in state.changes],
        "turns": turns(state.changes),
        "p95_before": before,
        "p95_high": p95,
        "lost": len(calls.failures),
        "ok": all(len(each) <= 2 and max(each) - min(each) <= 1 for each in counts.values())
        and counts["low"] == [1]
        and turns(state.changes) == 1
        and not calls.failures
        and p95 is not None
        and before is not None
        and p95 <= _SLOW * before,
    }


async def ramp(replicas: Sequence[Service], target: float, seed: int) -> tuple[Series, dict[str, Any]]:
    """One replica, a load beyond it."""
    series, calls = await watched(replicas[:1], RAMP, lambda now, signal: 1, seed)
    return series, ramp_findings(series, calls, target)


async def day(replicas: Sequence[Service], target: float, seed: int) -> tuple[Series, dict[str, Any]]:
    """A load that rises, stays, and falls, under the autoscaler."""
    rules = Rules(target, 1, MOST, down_window=40.0, up_period=2.0, down_period=8.0)
    state = State(1)

    def scaled(now: float, signal: float) -> int:
        nonlocal state
        state = decide(state, signal, now, rules)
        return state.replicas

    series, calls = await watched(replicas, DAY, scaled, seed)
    return series, day_findings(series, calls, state)


def plot(found: Sequence[tuple[str, Series]], target: float, file: Path) -> None:
    """The last of each, one below the other."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(3, len(found), figsize=(6 * len(found), 8), sharex="col", squeeze=False)
    for column, (name, series) in enumerate(found):
        signal, latency, replicas = axes[:, column]
        per_replica = [each / count for each, count in zip(series.signal, series.replicas, strict=True)]
        signal.plot(series.at, per_replica, label="tokens in a replica, mean of 8 s")
        signal.axhline(target, color="grey", linestyle=":", label="target")
        signal.set(title=name, ylabel="tokens")
        latency.plot(series.at, [float("nan") if each is None else each for each in series.p95])
        latency.set(ylabel="p95 latency, s")
        replicas.step(series.at, series.replicas, where="post", label="replicas")
        replicas.plot(series.at, [each / CAPACITY for each in series.rate], label="load, in replicas' capacity")
        replicas.set(ylabel="replicas", xlabel="seconds")
        signal.legend()
        replicas.legend()
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    pyplot.close(figure)


async def measured(folder: Path, count: int) -> dict[str, Any]:
    """Both questions, so many times; draws the last."""
    with services(folder, MOST) as replicas:
        tokens = await item_tokens(replicas[0])
        target = UTILISATION * BATCH_ITEMS * _WAITING * tokens
        document: dict[str, Any] = {"tokens_of_an_item": tokens, "target": target, "ramp": [], "day": []}
        for seed in range(count):
            for name, run in (("ramp", ramp), ("day", day)):
                series, findings = await run(replicas, target, seed)
                print(f"{name} {seed}: {json.dumps(findings)}", flush=True)
                document[name].append({"findings": findings, "series": asdict(series)})
    return document


def main() -> None:
    """Exits with 1 where the signal came late or the autoscaler did not settle."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often both are done")
    parser.add_argument(
        "--json", type=Path, default=Path("runs/checks/ops_autoscaling.json"), help="figures; .png beside"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="palate-check-") as folder:
        document = asyncio.run(measured(Path(folder), given.rounds))
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(document))
    last = [(name, Series(**document[name][-1]["series"])) for name in ("ramp", "day")]
    plot(last, document["target"], given.json.with_suffix(".png"))
    sys.exit(0 if all(each["findings"]["ok"] for name in ("ramp", "day") for each in document[name]) else 1)


if __name__ == "__main__":
    main()
