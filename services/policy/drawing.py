"""Who is drawn together: completions of all calls share a batch; one that ends makes room for the next between steps.

A free place goes to the caller who has the fewest completions running, and to his call that has (`precedence`). So
neither a long completion, nor a call with many of them, nor a caller with many calls holds up the rest. Where a step
fails, its rows go on in halves, until what makes it fail stands alone. Runs in the engine's thread; knows neither
threads nor readers.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from services.policy.engine import Engine
from services.policy.jobs import Group, Job
from services.policy.lanes import Happened, Lane
from services.policy.metrics import PolicyMetrics
from services.policy.precedence import PlaceTurns
from services.policy.staging import Served
from services.runtime.tracebacks import whereabouts

logger = logging.getLogger(__name__)

_IDLE_SHARE = 4
"""Where not all who wait find room, they join once free places have idled for a quarter of a step of all places:
reading prompts holds up the others by about that, however few they are."""

_APART = 1
"""Batches apart that may be under way beside the shared ones."""

_APART_ONLY = 4
"""The same where rows cannot join: a long one shall leave room for others."""


class Weights(Protocol):
    """What is served, and how many commits have told running completions to follow."""

    @property
    def current(self) -> Served[Any]:
        """Weights for what begins now."""
        ...

    @property
    def interruptions(self) -> int:
        """Grows after `current` has changed."""
        ...


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """What is drawn together.

    Attributes:
        max_rows: Completions.
        max_tokens: Tokens of prompts and completions, padding included.
    """

    max_rows: int
    max_tokens: int

    def allow(self, rows: int, tokens: int) -> bool:
        """Whether so much may be drawn together; one row always may."""
        return rows <= 1 or (rows <= self.max_rows and tokens <= self.max_tokens)


class Drawing:
    """The completions of all calls, those that wait and those that are drawn.

    Args:
        engine: Draws.
        weights: From what.
        limits: Of all shared batches together; groups apart are cut to them beforehand.
        metrics: What is counted.
    """

    def __init__(self, engine: Engine[Any], weights: Weights, limits: BatchLimits, metrics: PolicyMetrics) -> None:
        self._engine = engine
        self._weights = weights
        self._limits = limits
        self._metrics = metrics
        self._followed = weights.interruptions
        self._jobs: list[Job[Any]] = []  # in the order of their arrival
        self._lanes: list[Lane] = []
        self._places = PlaceTurns()
        self._idle = 0  # places that were free while others waited, summed over steps
        self._failed: list[Happened] = []
        self.steps = 0

    def add(self, job: Job[Any]) -> None:
        """Takes a call's groups in."""
        self._jobs.append(job)

    def remove(self, job: Job[Any]) -> None:
        """Forgets a call, and frees its places."""
        self._jobs = [other for other in self._jobs if other is not job]
        job.groups.clear()
        for lane in self._lanes:
            lane.remove(job)
        self._lanes = [lane for lane in self._lanes if lane]

    def clear(self) -> None:
        """Forgets everything, in whatever state it is."""
        self._jobs, self._lanes, self._failed = [], [], []

    def round(self) -> Iterator[Sequence[Happened]]:
        """Fills free places, then draws a token for every completion in one; tells of each step before the next."""
        self._follow()
        yield self._admit()
        for lane in self._lanes[: 1 if self._engine.one_batch else None]:
            if lane:  # its calls may have gone after an earlier step
                self.steps += 1
                self._metrics.decode_steps.inc()
                yield self._step(lane)
        self._lanes = [lane for lane in self._lanes if lane]
        self._metrics.running_rows.set(sum(map(len, self._lanes)))

    def _step(self, lane: Lane) -> list[Happened]:
        begin = time.monotonic()
        try:
            happened = lane.step()
        except Exception as error:
            happened = self._break_up(lane, error)
        seconds = time.monotonic() - begin
        for one in happened:
            one.seconds = seconds
        return happened

    def _break_up(self, lane: Lane, error: Exception) -> list[Happened]:
        """Puts halves in the place of a lane whose step failed, where it can be halved.

        A half is joined by no other row, so no row can be in more failing steps than its first lane can be halved.
        """
        logger.error("the engine failed on a step of %d completions\n%s", len(lane), whereabouts(error))
        place = self._lanes.index(lane)
        if lane.whole:
            del self._lanes[place]
            return lane.fail(type(error).__name__)
        self._lanes[place : place + 1] = lane.halves()
        return [Happened(job) for job in lane.jobs]

    def _follow(self) -> None:
        """After a commit that interrupts, takes completions out of the batches that draw from other weights."""
        if (interruptions := self._weights.interruptions) == self._followed:
            return
        self._followed, served = interruptions, self._weights.current
        for lane in self._lanes:
            if lane.served is not served:
                lane.put_back()
        self._lanes = [lane for lane in self._lanes if lane]

    def _admit(self) -> Sequence[Happened]:
        """Begins what there is room for; tells of calls that could not begin."""
        waiting = [job for job in self._jobs if job.groups]
        apart = [job for job in waiting if job.groups[0].apart]
        shared = [job for job in waiting if not job.groups[0].apart]
        self._open_apart(apart)
        if shared and self._worth_joining(shared):
            self._idle = 0
            self._fill(shared)
        failed, self._failed = self._failed, []
        return failed

    def _open_apart(self, waiting: Sequence[Job[Any]]) -> None:
        most = _APART if self._engine.joins else _APART_ONLY
        for job in self._places.order(waiting, self._jobs):
            if sum(lane.apart for lane in self._lanes) >= most or self._blocked(job.groups[0]):
                return
            self._begin(job)

    def _worth_joining(self, waiting: Sequence[Job[Any]]) -> bool:
        """Whether to read prompts now, which holds up the completions that are being drawn."""
        free = self._limits.max_rows - self._shared_rows
        self._idle += free
        if sum(len(job.groups) for job in waiting) <= free or not all(job.groups[0].fresh for job in waiting):
            return True
        return free > 0 and self._idle * _IDLE_SHARE >= self._limits.max_rows

    def _fill(self, waiting: Sequence[Job[Any]]) -> None:
        """Gives free places away, one by one, until there is no room for the one whose turn it is."""
        for job in self._places.order(waiting, self._jobs):
            group = job.groups[0]
            if self._blocked(group) or not self._has_room(group):
                return
            self._begin(job)

    def _has_room(self, group: Group) -> bool:
        own = self._lane_of(group)
        tokens = sum(lane.tokens_with() for lane in self._lanes if not lane.apart and lane is not own)
        width = group.wanted[0].row.most_tokens
        tokens += own.tokens_with(group.wanted) if own else width
        return self._limits.allow(self._shared_rows + 1, tokens)

    @property
    def _shared_rows(self) -> int:
        return sum(len(lane) for lane in self._lanes if not lane.apart)

    def _served(self, group: Group) -> Served[Any]:
        return self._weights.current if group.pinned is None else group.pinned

    def _blocked(self, group: Group) -> bool:
        """Whether the engine has to end what it draws before it can take in the weights for this group."""
        served = self._served(group)
        return self._engine.one_batch and any(lane.closed or lane.served is not served for lane in self._lanes)

    def _lane_of(self, group: Group) -> Lane | None:
        """The shared batch that draws from the group's weights and can be joined."""
        if group.apart:
            return None
        served, open_lanes = self._served(group), (lane for lane in self._lanes if not (lane.apart or lane.closed))
        return next((lane for lane in open_lanes if lane.served is served), None)

    def _new_lane(self, group: Group) -> Lane:
        served = self._served(group)
        self._lanes.append(Lane(partial(self._engine.batch, served.weights), served, apart=group.apart))
        return self._lanes[-1]

    def _begin(self, job: Job[Any]) -> None:
        """Puts a call's next group into a batch."""
        self._places.charge(job)
        group = job.groups.popleft()
        job.begun()
        try:
            (self._lane_of(group) or self._new_lane(group)).begin(job, group)
        except Exception as error:
            job.groups.clear()
            self._failed.append(Happened(job, error=error))
