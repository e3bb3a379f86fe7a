"""The queue of the scheduler: jobs by priority and caller, each caller's by their deadlines; who may be served next."""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import islice
from typing import Generic, TypeAlias

from services.runtime.fairness import Holdings, Served
from services.runtime.work import Entry, Item, Job, Result, Terms

Pace: TypeAlias = Callable[[Hashable], float]
"""Seconds that a token of a group takes in a backlog."""


class CallerQueue(Generic[Item, Result]):
    """One caller's jobs of one priority, most urgent first."""

    def __init__(self) -> None:
        self.jobs: list[Job[Item, Result]] = []
        self.tokens = 0
        self.tokens_of: Counter[Hashable] = Counter()

    def add(self, job: Job[Item, Result]) -> None:
        """Puts it in its place."""
        insort(self.jobs, job, key=Job.rank)
        self._count(job, job.size)

    def remove(self, job: Job[Item, Result]) -> None:
        """Takes it out; its terms are those it was added with."""
        index = bisect_left(self.jobs, job.rank(), key=Job.rank)
        assert self.jobs[index] is job, "a job changed its terms while it was in a queue; this is a bug"
        del self.jobs[index]
        self._count(job, -job.size)

    def _count(self, job: Job[Item, Result], tokens: int) -> None:
        self.tokens += tokens
        self.tokens_of[job.group] += tokens
        if not self.tokens_of[job.group]:
            del self.tokens_of[job.group]

    def seconds(self, pace: Pace) -> float:
        """How long all of it takes."""
        return sum(tokens * pace(group) for group, tokens in self.tokens_of.items())

    def token_seconds(self, pace: Pace) -> float:
        """What one of its tokens takes, whichever it is; a queue that is empty is not kept."""
        return self.seconds(pace) / self.tokens

    def within(self, allowance: float, most: int) -> int:
        """How many jobs, `most` at most, begin within so many tokens."""
        count, begin = 0, 0
        for job in self.jobs[:most]:
            if begin > allowance:
                break
            count += 1
            begin += job.size
        return count

    def tokens_before(self, deadline: float) -> int:
        """Tokens of the jobs that go before one that comes now with this deadline."""
        after = 0
        for job in reversed(self.jobs):
            if job.deadline <= deadline:
                break
            after += job.size
        return self.tokens - after


class JobQueue(Generic[Item, Result]):
    """Jobs that wait.

    Args:
        max_items: Entries that may wait.
        max_tokens: Tokens of jobs that may wait.
        quantum: Tokens by which a caller may be ahead of the least served one who waits, within a priority.
        window: How many jobs are looked at for one batch.
    """

    def __init__(self, max_items: int, max_tokens: int, *, quantum: int, window: int) -> None:
        self.items = Holdings(max_items)
        self.tokens = Holdings(max_tokens)
        self.served = Served()
        self._quantum = quantum
        self.window = window
        self._priorities: dict[int, dict[str, CallerQueue[Item, Result]]] = {}
        self._count = 0

    def __len__(self) -> int:
        """How many jobs wait."""
        return self._count

    def join(self, job: Job[Item, Result], entry: Entry[Item, Result]) -> None:
        """`entry` waits for `job`, which may be new, or become more urgent by this."""
        self.items.change(entry.terms.caller, 1)
        if job.queued:
            self._take_out(job)
        job.join(entry)
        self._put_in(job)

    def leave(self, job: Job[Item, Result], entries: Sequence[Entry[Item, Result]]) -> None:
        """They wait no more for `job`, which goes with the last one."""
        for entry in entries:
            self.items.change(entry.terms.caller, -1)
        self._take_out(job)
        job.part(entries)
        if job.entries:
            self._put_in(job)

    def start(self, job: Job[Item, Result]) -> None:
        """`job` is being computed; its caller has been served."""
        self._take_out(job)
        self.served.charge(job.terms.caller, job.size)
        for entry in job.entries:
            self.items.change(entry.terms.caller, -1)

    def _put_in(self, job: Job[Item, Result]) -> None:
        queues = self._priorities.setdefault(job.terms.priority, {})
        queues.setdefault(job.terms.caller, CallerQueue()).add(job)
        self.tokens.change(job.terms.caller, job.size)
        self._count += 1
        job.queued = True

    def _take_out(self, job: Job[Item, Result]) -> None:
        queues = self._priorities[job.terms.priority]
        queue = queues[job.terms.caller]
        queue.remove(job)
        if not queue.jobs:
            del queues[job.terms.caller]
        if not queues:
            del self._priorities[job.terms.priority]
        self.tokens.change(job.terms.caller, -job.size)
        self._count -= 1
        job.queued = False

    def fronts(self) -> list[list[Job[Item, Result]]]:
        """Every queue's jobs, most urgent first; not to be changed, nor kept."""
        return [queue.jobs for queue in self._queues()]

    def level(self) -> None:
        """Moves the floor of what counts as served."""
        if self._priorities:
            self.served.level({caller for queues in self._priorities.values() for caller in queues})

    def tiers(self) -> Iterator[list[Job[Item, Result]]]:
        """Who may be served next, most urgent first within a tier; a tier's turn comes when those before it are empty.

        For every priority, highest first: what may go now by fairness, then what must leave others the precedence.
        """
        for priority in sorted(self._priorities, reverse=True):
            queues = self._priorities[priority]
            shares = [(queue, queue.within(allowance, self.window)) for queue, allowance in self._allowances(queues)]
            yield self._most_urgent([queue.jobs[:count] for queue, count in shares])
            yield self._most_urgent([queue.jobs[count : count + self.window] for queue, count in shares])

    def _most_urgent(self, ranked: Sequence[list[Job[Item, Result]]]) -> list[Job[Item, Result]]:
        """The first of several lists, each in order, none longer than the window."""
        if len(ranked) == 1:
            return ranked[0]
        return list(islice(heapq.merge(*ranked, key=Job.rank), self.window))

    def holds(self, group: Hashable) -> bool:
        """Whether something of `group` waits."""
        return any(group in queue.tokens_of for queue in self._queues())

    def token_seconds(self, pace: Pace) -> float:
        """What a token of all that waits takes; 0 where nothing waits, or nothing is known."""
        return sum(queue.seconds(pace) for queue in self._queues()) / max(self.tokens.total, 1)

    def seconds_ahead(self, terms: Terms, tokens: int, pace: Pace) -> float:
        """How long all takes that goes before all of `tokens` more on these terms, if nothing else comes.

        Fairness counts tokens; what part of a queue goes before is taken to cost what the queue's tokens cost on
        average.
        """
        higher = sum(
            queue.seconds(pace)
            for priority, queues in self._priorities.items()
            if priority > terms.priority
            for queue in queues.values()
        )
        queues = self._priorities.get(terms.priority, {})
        mine = queues.get(terms.caller)
        own = mine.tokens_before(terms.deadline) if mine is not None else 0
        served = self.served.of(terms.caller)
        last = served + own + tokens + self._quantum  # who has been served more lets these go first
        others = 0.0
        for caller, queue in queues.items():
            if caller != terms.caller:
                theirs = self.served.of(caller)
                at_least = min(queue.tokens, served - self._quantum - theirs)  # they must catch up first
                ahead = max(at_least, min(queue.tokens_before(terms.deadline), last - theirs), 0.0)
                others += ahead * queue.token_seconds(pace)
        return higher + (own * mine.token_seconds(pace) if mine is not None else 0.0) + others

    def _queues(self) -> Iterator[CallerQueue[Item, Result]]:
        for queues in self._priorities.values():
            yield from queues.values()

    def _allowances(
        self, queues: dict[str, CallerQueue[Item, Result]]
    ) -> list[tuple[CallerQueue[Item, Result], float]]:
        """Tokens that may begin before a queue's caller is too far ahead of the least served; negative if it is."""
        if len(queues) == 1:
            return [(queue, math.inf) for queue in queues.values()]
        served = {caller: self.served.of(caller) for caller in queues}
        most = min(served.values()) + self._quantum
        return [(queue, most - served[caller]) for caller, queue in queues.items()]
