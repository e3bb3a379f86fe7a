"""What the engine computes next: chooses batches, keeps one ready, and learns what they cost."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, Protocol

from services.runtime.batching import BatchLimits, choose_batch, padded_tokens
from services.runtime.cost import Costs
from services.runtime.engine_thread import Run
from services.runtime.handoff import Batch, Handoff
from services.runtime.job_queue import JobQueue
from services.runtime.queue_admission import Outlook
from services.runtime.work import Entry, Item, Job, Observer, Result, Work


class Answers(Protocol[Item, Result]):
    """Receives what becomes of jobs."""

    def expired(self, job: Job[Item, Result], entry: Entry[Item, Result]) -> None:
        """`entry` cannot be in time any more; it has left the queue."""

    def computed(self, batch: Batch[Item, Result], run: Run[Item, Result]) -> None:
        """The engine gave results, or failed."""

    def emptied(self) -> None:
        """Nothing waits, and the engine is idle."""

    def made_room(self) -> None:
        """Something has left the queue."""


class Dispatcher(Generic[Item, Result]):
    """Stands between the queue and the engine; what the engine does is told to its `began`, `ran` and `ended`.

    Args:
        waiting: The queue.
        limits: The most that a batch may hold.
        clock: Monotonic seconds.
        observer: Told about batches.
        answers: Told about jobs.
        lanes: Batches that the engine computes side by side; may be raised.
        limits_of: What a batch of a group may hold, where that is less.
    """

    def __init__(
        self,
        waiting: JobQueue[Item, Result],
        limits: BatchLimits,
        clock: Callable[[], float],
        observer: Observer,
        answers: Answers[Item, Result],
        lanes: int,
        limits_of: Callable[[Hashable], BatchLimits],
    ) -> None:
        self.handoff: Handoff[Item, Result] = Handoff(clock)
        self._waiting = waiting
        self._limits = limits
        self._clock = clock
        self._observer = observer
        self._answers = answers
        self._costs = Costs()
        self._offered: Batch[Item, Result] | None = None
        self.lanes = lanes
        self._limits_of = limits_of
        self._running: set[Batch[Item, Result]] = set()

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is computed."""
        return not self._running and not len(self._waiting)

    def outlook(self, work: Work[Item]) -> Outlook:
        """How fast `work`, and a backlog, would be computed."""
        now = self._clock()
        item_seconds = self._costs.of(work.group).safe(work.size)
        return Outlook(
            now, self._free_at(now) - now, item_seconds, self._token_seconds(work.group), self._token_seconds
        )

    def improved_by(self, job: Job[Item, Result]) -> bool:
        """Whether a job that came just now, or became more urgent, may change the batch that lies ready."""
        if self._offered is None or not self._offered.jobs:
            return True
        if len(self._waiting) <= self._waiting.window and self._may_join(job, self._offered.jobs):
            return True
        return job.rank() < self._offered.jobs[0].rank()

    def _may_join(self, job: Job[Item, Result], others: list[Job[Item, Result]]) -> bool:
        limits = self._limits_of(others[0].group)
        sizes = [other.size for other in others]
        return len(sizes) < limits.max_items and padded_tokens([*sizes, job.size]) <= limits.max_tokens

    def plan(self) -> None:
        """Drops what cannot be in time any more, and lays the best batch ready."""
        self._waiting.level()
        start = self._free_at(self._clock())
        self._expire(start)
        jobs = choose_batch(
            self._waiting.tiers(),
            self._limits_of,
            lambda group, padded: start + self._costs.of(group).safe(padded),
        )
        alone = not self._running and len(jobs) == len(self._waiting)
        batch = Batch(jobs, self._seconds(jobs), alone) if jobs else None
        if self.handoff.replace(self._offered, batch):
            self._offered = batch

    def began(self, batch: Batch[Item, Result]) -> None:
        """The engine took a batch; one without jobs means that it was late for all of them."""
        self._offered = None
        if batch.jobs:
            self._running.add(batch)
            self._tell()
        for job in batch.jobs:
            self._waiting.start(job)
            for entry in job.entries:
                self._observer.item_started(max(batch.begun - entry.admitted, 0.0))
        self.plan()
        self._answers.made_room()

    def ran(self, batch: Batch[Item, Result], run: Run[Item, Result]) -> None:
        """The engine answered, or failed."""
        if run.error is None:
            self._learn(run)
        self._answers.computed(batch, run)

    def ended(self, batch: Batch[Item, Result]) -> None:
        """The engine is done with a batch."""
        self._running.discard(batch)
        self._tell()
        if self._offered is None and len(self._waiting):
            self.plan()
        if self.idle:
            self._answers.emptied()

    def _tell(self) -> None:
        self._observer.running_changed(sum(job.size for batch in self._running for job in batch.jobs))

    def _free_at(self, now: float) -> float:
        """When a lane of the engine can begin the next batch."""
        if len(self._running) < self.lanes:
            return now
        return max(now, min(batch.begun + batch.seconds for batch in self._running))

    def _seconds(self, jobs: list[Job[Item, Result]]) -> float:
        return self._costs.of(jobs[0].group).safe(padded_tokens([job.size for job in jobs]))

    def _token_seconds(self, group: Hashable) -> float:
        return self._costs.token_seconds(group, self._limits.max_tokens)

    def _learn(self, run: Run[Item, Result]) -> None:
        sizes, group = [job.size for job in run.jobs], run.jobs[0].group
        padded = padded_tokens(sizes)
        self._observer.batch_done(len(sizes), sum(sizes), padded, run.seconds)
        self._costs.learn(group, padded, run.seconds, self._clock())
        if self._waiting.holds(group):
            self._costs.follow(group, sum(sizes), run.seconds / self.lanes)

    def _expire(self, start: float) -> None:
        """Takes out who could not be answered in time even if his item were computed alone and next."""
        for front in self._waiting.fronts():
            while front and (late := self._late(front[0], start)) and self.handoff.withdraw(job := front[0]):
                self._waiting.leave(job, late)
                for entry in late:
                    self._answers.expired(job, entry)
                if not self._running:
                    self._costs.doubt(job.group, start)

    def _late(self, job: Job[Item, Result], start: float) -> list[Entry[Item, Result]]:
        """Entries that cannot be answered in time; who gives up in this turn of the loop leaves by himself."""
        end = start + self._costs.of(job.group).safe(job.size)
        if job.deadline >= end and job.deadline > start:
            return []
        waiting = [entry for entry in job.entries if not entry.answer.done()]
        return [entry for entry in waiting if entry.terms.deadline < end or entry.terms.deadline <= start]
