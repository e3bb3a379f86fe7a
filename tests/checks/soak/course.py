"""What servers take over time, once a second, and whether it grows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from tests.checks.faults.servers import descriptors, processor_seconds, resident_bytes, threads
from tests.checks.service import Service
from tests.checks.soak.growth import growth_of
from tests.checks.soak.traffic import Sight

_SAMPLE_SECONDS = 1.0
_WARM_SHARE = 0.25
"""Of the time, in which caches fill and memory is taken for good; not looked at."""

_MOST_GROWTH = 0.05
_MOST_WORK = 1.5


@dataclass
class Record:
    """One server over time."""

    resident: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def take(self, service: Service) -> None:
        """One sample."""
        self.resident.append(resident_bytes(service))
        self.descriptors.append(descriptors(service))
        self.threads.append(threads(service))
        self.processor.append(processor_seconds(service))


@dataclass
class Course:
    """What was recorded.

    Attributes:
        times: Seconds since the begin, of every sample.
        latency: Median and 99th percentile of answered calls since the sample before, in seconds; NaN where none was.
        ended: Calls until then.
        records: Per server.
    """

    times: list[float] = field(default_factory=list)
    latency: list[tuple[float, float]] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)
    records: dict[str, Record] = field(default_factory=dict)


async def record(services: Sequence[Service], sight: Sight, seconds: float) -> Course:
    """Looks at everything once a second."""
    course, begin = Course(), time.monotonic()
    while (now := time.monotonic() - begin) < seconds:
        course.times.append(now)
        course.ended.append(len(sight.fates))
        for service in services:
            course.records.setdefault(service.name, Record()).take(service)
        taken, sight.seconds = sight.seconds, []
        p50, p99 = np.percentile(taken, (50, 99)) if taken else (float("nan"), float("nan"))
        course.latency.append((float(p50), float(p99)))
        await asyncio.sleep(_SAMPLE_SECONDS)
    return course


def growths(course: Course) -> tuple[dict[str, object], list[str]]:
    """Per server and resource how it grows, and what grows that must not."""
    found: dict[str, object] = {}
    wrong = []
    warm = int(len(course.times) * _WARM_SHARE)
    for name, taken in course.records.items():
        memory = growth_of(taken.resident[warm:])
        found[f"{name}, memory"] = asdict(memory) | {"MiB": [taken.resident[warm] >> 20, taken.resident[-1] >> 20]}
        if memory.upper > _MOST_GROWTH:
            wrong.append(f"memory of {name} may grow by {memory.upper:.1%}")
        for what, values in (("descriptors", taken.descriptors[warm:]), ("threads", taken.threads[warm:])):
            half = len(values) // 2
            before, after = max(values[:half]), max(values[half:])
            found[f"{name}, {what}"] = {"most in the first half": before, "most in the second": after}
            if float(np.median(values[half:])) > float(np.median(values[:half])) + 1:
                wrong.append(f"{what} of {name} grow: at most {before}, then {after}")
    return found, wrong


def slowing(course: Course) -> tuple[dict[str, object], list[str]]:
    """Latency and processor time per call in each quarter, and whether calls cost more in the last than in the second.

    Latency is not judged: whatever else runs on the machine doubles it. What the servers compute for a call is theirs,
    and grows where something is searched through that grows.
    """
    quarters = np.array_split(np.arange(len(course.times)), 4)
    latency = [float(np.nanmedian([course.latency[index][0] for index in quarter])) for quarter in quarters]
    work = [_work(course, int(quarter[0]), int(quarter[-1])) for quarter in quarters]
    found: dict[str, object] = {
        "median latency of quarters, ms": [round(1000 * each, 1) for each in latency],
        "processor time per call of quarters, ms": [round(1000 * each, 2) for each in work],
    }
    slower = work[-1] / work[1]
    return found, [f"a call costs {slower:.2f} times what it did"] if slower > _MOST_WORK else []


def _work(course: Course, begin: int, end: int) -> float:
    """Seconds that the servers computed per call between two samples."""
    spent = sum(taken.processor[end] - taken.processor[begin] for taken in course.records.values())
    return spent / max(1, course.ended[end] - course.ended[begin])
