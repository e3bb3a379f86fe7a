"""Mixed load with faults for minutes, and what it leaves: `python -m tests.checks.soak [--minutes 20]`.

Two servers with fake engines take calls of every kind; some callers hurry, some give up, some ask for what nobody
gives, and connections are cut. Every call must be accounted for; memory, descriptors and threads must not grow.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from palate.report.figures import Axis, curves
from palate.report.page import Section, write_page
from tests.checks.faults.accounting import Fate
from tests.checks.faults.network import way_to
from tests.checks.faults.servers import descriptors, make_models, policy_server, resident_bytes, reward_server, threads
from tests.checks.service import Service
from tests.checks.soak.accounts import FATE_OF_CODE, complaints, counted, disagreements, logged
from tests.checks.soak.growth import growth_of
from tests.checks.soak.traffic import Caller, Sight, disturb

_CALLERS = 12
_SAMPLE_SECONDS = 1.0
_WARM_SHARE = 0.25
"""Of the time, in which caches fill and memory is taken for good; not looked at."""

_MOST_GROWTH = 0.05
_LEAST_CALLS = 100_000
_FLAGS = ("--log-level", "DEBUG", "--max-concurrent-calls", "64")


@dataclass
class Record:
    """One server over time."""

    resident: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)

    def take(self, service: Service) -> None:
        """One sample."""
        self.resident.append(resident_bytes(service))
        self.descriptors.append(descriptors(service))
        self.threads.append(threads(service))


@dataclass
class Course:
    """What was recorded.

    Attributes:
        times: Seconds since the begin, of every sample.
        latency: Median and 99th percentile of answered calls since the sample before, in seconds; NaN where none was.
        records: Per server.
    """

    times: list[float] = field(default_factory=list)
    latency: list[tuple[float, float]] = field(default_factory=list)
    records: dict[str, Record] = field(default_factory=dict)


async def record(services: Sequence[Service], sight: Sight, seconds: float) -> Course:
    """Looks at everything once a second."""
    course, begin = Course(), time.monotonic()
    while (now := time.monotonic() - begin) < seconds:
        course.times.append(now)
        for service in services:
            course.records.setdefault(service.name, Record()).take(service)
        taken, sight.seconds = sight.seconds, []
        p50, p99 = np.percentile(taken, (50, 99)) if taken else (float("nan"), float("nan"))
        course.latency.append((float(p50), float(p99)))
        await asyncio.sleep(_SAMPLE_SECONDS)
    return course


async def soak(
    folder: Path, seconds: float, least: int, complained: Path
) -> tuple[dict[str, object], Course, list[str]]:
    """Figures, the course of things, and what is wrong; `complained` gets what servers said beside their calls."""
    sight, over = Sight(), asyncio.Event()
    async with reward_server(folder, *_FLAGS) as reward, policy_server(folder, *_FLAGS) as policy:
        services = (reward, policy)
        async with way_to("127.0.0.1", reward.port) as way:
            callers = [Caller(way, policy.target, sight, seed) for seed in range(_CALLERS)]
            tasks = [asyncio.create_task(caller.call(over)) for caller in callers]
            tasks.append(asyncio.create_task(disturb(way, over)))
            course = await record(services, sight, seconds)
            over.set()
            await asyncio.gather(*tasks)
        await asyncio.gather(*(_quiet(service) for service in services))
        metrics = [counted(service.metrics_target) for service in services]
    codes: dict[str, list[str]] = defaultdict(list)
    for service in services:
        for name, code in logged(service.log):
            codes[name].append(code)
    complained.write_text("".join(line for service in services for line in complaints(service.log)))
    return _judged(sight, metrics, codes, course, least)


async def _quiet(service: Service) -> None:
    """Waits until no call is in flight."""
    while await asyncio.to_thread(service.samples, "palate_calls_in_flight"):
        await asyncio.sleep(0.1)


def _judged(
    sight: Sight,
    metrics: Sequence[tuple[int, Counter[Fate]]],
    codes: dict[str, list[str]],
    course: Course,
    least: int,
) -> tuple[dict[str, object], Course, list[str]]:
    seen, begun = sight.count(), sum(each[0] for each in metrics)
    ended = sum((each[1] for each in metrics), Counter[Fate]())
    in_log = Counter(FATE_OF_CODE.get(code, Fate.FAILED) for found in codes.values() for code in found)
    wrong = disagreements(sight.fates, codes)[:20]
    for told, kept in (
        (f"{sight.made} calls were made, {seen.total()} ended", sight.made == seen.total()),
        (f"{begun} calls were begun by the metrics, {ended.total()} ended", begun == ended.total()),
        (f"metrics say {dict(ended)}, the log {dict(in_log)}", ended == in_log),
        (f"answers that are not whole: {dict(sight.wrong)}", not sight.wrong.total()),
        (f"{sight.made} calls are fewer than {least}", sight.made >= least),
    ):
        if not kept:
            wrong.append(told)
    growths, found = _growths(course)
    accounts = {
        "callers": _account(sight.made, seen),
        "metrics": _account(begun, ended),
        "log": _account(begun, in_log),
    }
    return {**accounts, "growth": growths}, course, wrong + found


def _account(made: int, ended: Counter[Fate]) -> dict[str, int]:
    return {"received": made, **{fate.value: ended[fate] for fate in Fate}}


def _growths(course: Course) -> tuple[dict[str, object], list[str]]:
    """Per server and resource, and what grows."""
    growths: dict[str, object] = {}
    wrong = []
    warm = int(len(course.times) * _WARM_SHARE)
    for name, taken in course.records.items():
        memory = growth_of(taken.resident[warm:])
        growths[f"{name}, memory"] = asdict(memory) | {"MiB": [taken.resident[warm] >> 20, taken.resident[-1] >> 20]}
        if memory.upper > _MOST_GROWTH:
            wrong.append(f"memory of {name} may grow by {memory.upper:.1%}")
        for what, values in (("descriptors", taken.descriptors[warm:]), ("threads", taken.threads[warm:])):
            half = len(values) // 2
            before, after = max(values[:half]), max(values[half:])
            growths[f"{name}, {what}"] = {"most in the first half": before, "most in the second": after}
            if float(np.median(values[half:])) > float(np.median(values[:half])) + 1:
                wrong.append(f"{what} of {name} grow: at most {before}, then {after}")
    return growths, wrong


def _mebibytes(record: Record) -> list[float]:
    return [taken / 2**20 for taken in record.resident]


def _draw(course: Course, path: Path, lead: str) -> None:
    axis = Axis("seconds", "")
    names = course.records
    figures = [
        curves("Memory", Axis("seconds", "MiB"), course.times, {n: _mebibytes(names[n]) for n in names}),
        curves("Descriptors", axis, course.times, {n: names[n].descriptors for n in names}),
        curves("Threads", axis, course.times, {n: names[n].threads for n in names}),
        curves(
            "Latency of answered calls", Axis("seconds", "ms"), course.times,
            {"median": [1000 * p50 for p50, _ in course.latency], "99 %": [1000 * p99 for _, p99 in course.latency]},
        ),
    ]  # fmt: skip
    write_page(path, "Soak", lead, [Section("Over time", figures=figures)])


def main() -> None:
    """Exits with 1 where something is lost or grows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--least-calls", type=int, default=_LEAST_CALLS, help="fewer are no soak")
    parser.add_argument("--json", type=Path, default=Path("runs/checks/soak.json"), help="figures; a page beside it")
    given = parser.parse_args()
    complained = given.json.with_suffix(".log")
    given.json.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="palate-soak-") as folder:
        tempfile.tempdir = folder
        make_models()
        figures, course, wrong = asyncio.run(soak(Path(folder), 60 * given.minutes, given.least_calls, complained))
    given.json.write_text(json.dumps({**figures, "wrong": wrong, "course": asdict(course)}) + "\n")
    lead = f"{given.minutes:g} minutes of mixed calls with faults. Wrong: {'; '.join(wrong) or 'nothing'}."
    _draw(course, given.json.with_suffix(".html"), lead)
    print(json.dumps(figures, indent=1))
    print(f"wrong: {wrong or 'nothing'}; {given.json}, {given.json.with_suffix('.html')}, {complained}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
