"""Whose turn it is: a caller's by what he has running and was served, then among his own calls."""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import Any

from services.policy.jobs import Job
from services.runtime.fairness import Served


class PlaceTurns:
    """Who gets the next place to draw a completion in.

    The caller who has the fewest completions running, among equals the one who was served least, so that many who
    come again and again leave the others their turn; of his calls the one that has the fewest running, among equals
    the one whose deadline is first. What is drawn on goes before what is begun, whoever it belongs to.
    """

    def __init__(self) -> None:
        self._served = Served()

    def charge(self, job: Job[Any]) -> None:
        """The job's next group begins; what is drawn on was charged when it began."""
        group = job.groups[0]
        if group.fresh:
            self._served.charge(job.caller, sum(wanted.row.sampling.max_new_tokens for wanted in group.wanted))

    def order(self, waiting: Sequence[Job[Any]], jobs: Sequence[Job[Any]]) -> Iterator[Job[Any]]:
        """Whose turn it is, again and again; each time one of the job's groups must have begun.

        Args:
            waiting: Those that have groups.
            jobs: All, in the order of their arrival.
        """
        running: Counter[str] = Counter()
        for job in jobs:
            running[job.caller] += job.running
        self._served.level({job.caller for job in jobs if job.groups})
        own: dict[str, list[tuple[bool, int, float, int]]] = {}
        for place, job in enumerate(waiting):
            heapq.heappush(own.setdefault(job.caller, []), _turn(job, place))
        callers = [self._turn_of(caller, running, turns) for caller, turns in own.items()]
        heapq.heapify(callers)
        while callers:
            *_, place, caller = heapq.heappop(callers)
            job, before = waiting[place], waiting[place].running
            heapq.heappop(own[caller])
            yield job
            running[caller] += job.running - before
            if job.groups:
                heapq.heappush(own[caller], _turn(job, place))
            if own[caller]:
                heapq.heappush(callers, self._turn_of(caller, running, own[caller]))

    def _turn_of(
        self, caller: str, running: Counter[str], turns: list[tuple[bool, int, float, int]]
    ) -> tuple[bool, int, float, int, float, int, str]:
        """A caller's, by his first call; lower comes first."""
        fresh, of_job, deadline, place = turns[0]
        return fresh, running[caller], self._served.of(caller), of_job, deadline, place, caller


def _turn(job: Job[Any], place: int) -> tuple[bool, int, float, int]:
    """Among the calls of one caller; lower comes first."""
    return job.groups[0].fresh, job.running, job.deadline, place


class SliceTurns:
    """Whose slice is next: that of the caller who was served least, and of his call that has waited longest."""

    def __init__(self) -> None:
        self._jobs: dict[str, deque[Job[Any]]] = {}
        self._served = Served()

    def __bool__(self) -> bool:
        return bool(self._jobs)

    def add(self, job: Job[Any]) -> None:
        """Puts a job behind its caller's others."""
        self._jobs.setdefault(job.caller, deque()).append(job)

    def remove(self, job: Job[Any]) -> None:
        """Takes a job out, if it is here."""
        own = self._jobs.get(job.caller, deque())
        if job in own:
            own.remove(job)
            if not own:
                del self._jobs[job.caller]

    def take(self) -> Job[Any]:
        """Takes out the job whose next slice is to be run."""
        self._served.level(self._jobs)
        caller = min(self._jobs, key=self._served.of)
        job = self._jobs[caller][0]
        self.remove(job)
        self._served.charge(caller, job.slices[0].tokens)
        return job
