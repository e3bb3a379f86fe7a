"""Mixed load with faults for minutes, and what it leaves: `python -m tests.checks.soak [--minutes 20]`.

Two servers with tiny real models take calls of every kind; some callers hurry, some give up, some ask for what nobody
gives; connections are cut, and now and then a server is stopped for a second or two. Every call must be accounted for,
and nothing may grow: not memory, descriptors or threads, and not what a call costs. In the last tenth of the time
servers are killed and started again, and callers' accounts alone are judged: what a killed server knew is gone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from palate.report.figures import Axis, curves
from palate.report.page import Section, write_page
from tests.checks.faults.accounting import Fate
from tests.checks.faults.leftovers import left_since, own_temporary_folder, present
from tests.checks.faults.network import Way, way_to
from tests.checks.service import Service
from tests.checks.soak.accounts import (
    FATE_OF_CODE,
    broken_promises,
    complaints,
    counted,
    disagreements,
    errors,
    logged,
)
from tests.checks.soak.course import Course, Record, growths, record, slowing
from tests.checks.soak.disturbances import cut, kill, stop
from tests.checks.soak.servers import soaked
from tests.checks.soak.traffic import Sight, calling

_CALLERS = 12
_LEAST_CALLS = 100_000
_KILLING_SHARE = 0.1
_SHOWN = 20
"""Wrong calls that are named."""

Figures = dict[str, object]
Found = tuple[Figures, list[str]]
"""Figures, and what is wrong."""


async def soak(folder: Path, seconds: float, least: int, complained: Path) -> tuple[Figures, Course, list[str]]:
    """Figures, the course of things, and what is wrong; `complained` gets what servers said beside their calls."""
    mixed, killed = Sight("mixed"), Sight("killed")
    async with soaked(folder) as services, way_to("127.0.0.1", services[0].port) as way:
        course, faults = await _mixed(services, way, mixed, seconds * (1 - _KILLING_SHARE))
        accounts, disagreed = await _compared(services, mixed, least)
        async with calling(way, services[1].target, killed, _CALLERS):
            faults["kills"] = await kill(services, seconds * _KILLING_SHARE)
    complained.write_text("".join(line for service in services for line in complaints(service.log)))
    grown, growing = growths(course)
    slowed, slower = slowing(course)
    figures = {**accounts, "callers, with kills": _account(killed.made, killed.count()), "faults": faults}
    wrong = disagreed + growing + slower + broken_promises(killed)
    wrong += [error for service in services for error in errors(service.log)][:_SHOWN]
    return {**figures, "growth": grown, **slowed}, course, wrong


async def _mixed(services: Sequence[Service], way: Way, sight: Sight, seconds: float) -> tuple[Course, dict[str, int]]:
    """Calls while connections are cut and servers stopped: what was recorded, and how often each was done."""
    async with calling(way, services[1].target, sight, _CALLERS) as over:
        faults = [asyncio.create_task(fault) for fault in (cut(way, over), stop(services, over))]
        course = await record(services, sight, seconds)
        over.set()
        cuts, stops = await asyncio.gather(*faults)
    return course, {"cuts": cuts, "stops": stops}


async def _compared(services: Sequence[Service], sight: Sight, least: int) -> Found:
    """Three accounts of the same calls."""
    await asyncio.gather(*(_quiet(service) for service in services))
    metrics = [await asyncio.to_thread(counted, service.metrics_target) for service in services]
    begun, ended = sum(each[0] for each in metrics), sum((each[1] for each in metrics), Counter[Fate]())
    codes: dict[str, list[str]] = defaultdict(list)
    for service in services:
        for name, code in logged(service.log):
            codes[name].append(code)
    in_log = Counter(FATE_OF_CODE.get(code, Fate.FAILED) for found in codes.values() for code in found)
    wrong = broken_promises(sight) + disagreements(sight.fates, codes)[:_SHOWN]
    for told, kept in (
        (f"{begun} calls were begun by the metrics, {ended.total()} ended", begun == ended.total()),
        (f"metrics say {dict(ended)}, the log {dict(in_log)}", ended == in_log),
        (f"{sight.made} calls are fewer than {least}", sight.made >= least),
    ):
        if not kept:
            wrong.append(told)
    accounts = {"callers": (sight.made, sight.count()), "metrics": (begun, ended), "log": (begun, in_log)}
    return {name: _account(*account) for name, account in accounts.items()}, wrong


async def _quiet(service: Service) -> None:
    """Waits until no call is in flight."""
    while await asyncio.to_thread(service.samples, "palate_calls_in_flight"):
        await asyncio.sleep(0.1)


def _account(made: int, ended: Counter[Fate]) -> dict[str, int]:
    return {"received": made, **{fate.value: ended[fate] for fate in Fate}}


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
    with own_temporary_folder("palate-soak-"):
        before = present()
        with TemporaryDirectory() as folder:
            figures, course, wrong = asyncio.run(soak(Path(folder), 60 * given.minutes, given.least_calls, complained))
        wrong += [f"left behind: {left}" for left in sorted(left_since(before))]
    given.json.write_text(json.dumps({**figures, "wrong": wrong, "course": asdict(course)}) + "\n")
    lead = f"{given.minutes:g} minutes of mixed calls with faults. Wrong: {'; '.join(wrong) or 'nothing'}."
    _draw(course, given.json.with_suffix(".html"), lead)
    print(json.dumps(figures, indent=1))
    print(f"wrong: {wrong or 'nothing'}; {given.json}, {given.json.with_suffix('.html')}, {complained}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
