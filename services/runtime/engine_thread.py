"""A thread that runs the engine: batch after batch without waiting for the event loop; a failing one in halves."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol, TypeAlias

from services.runtime.handoff import Batch, Handoff
from services.runtime.work import Item, Job, Result

RunBatch: TypeAlias = Callable[[Hashable, Sequence[Item], bool], Sequence[Result]]
"""The engine: one result per item of one group, in order; blocks; called from a thread for each lane. Is told whether
nothing else waits or is being computed.
"""


@dataclass(frozen=True, slots=True)
class Run(Generic[Item, Result]):
    """One call of the engine.

    Attributes:
        jobs: What it was for.
        values: One per job; empty where it failed.
        error: What the engine raised.
        final: False where the jobs will be tried again, half of them at a time.
    """

    jobs: Sequence[Job[Item, Result]]
    values: Sequence[Result]
    error: BaseException | None
    seconds: float
    final: bool


class Listener(Protocol[Item, Result]):
    """Told what the engine does, in the event loop."""

    def began(self, batch: Batch[Item, Result]) -> None:
        """The engine took a batch; one without jobs means that it was late for all of them."""

    def ran(self, batch: Batch[Item, Result], run: Run[Item, Result]) -> None:
        """The engine answered, or failed."""

    def ended(self, batch: Batch[Item, Result]) -> None:
        """The engine is done with a batch and has taken up the next, if there is one."""


class EngineThread(Generic[Item, Result]):
    """Runs batches until the handoff is stopped.

    Args:
        run_batch: The engine.
        handoff: Where batches come from.
        clock: Monotonic seconds.
        listener: Told what happens.
        post: Calls a function in the listener's event loop.
    """

    def __init__(
        self,
        run_batch: RunBatch[Item, Result],
        handoff: Handoff[Item, Result],
        clock: Callable[[], float],
        listener: Listener[Item, Result],
        post: Callable[..., Any],
    ) -> None:
        self._run_batch = run_batch
        self._handoff = handoff
        self._clock = clock
        self._listener = listener
        self._post = post
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Waits for the end of the thread; stop the handoff first."""
        self._thread.join()

    def _work(self) -> None:
        news: list[Callable[[], None]] = []
        while (batch := self._next(news)) is not None:
            self._tell([*news, partial(self._listener.began, batch)])
            news = []
            for run in self._runs(batch):
                self._tell(news)
                news = [partial(self._listener.ran, batch, run)]
            news.append(partial(self._listener.ended, batch))

    def _next(self, news: list[Callable[[], None]]) -> Batch[Item, Result] | None:
        """The next batch; where there is none yet, the news are told before waiting for it."""
        if (batch := self._handoff.take()) is None:
            self._tell(news)
            news.clear()
            batch = self._handoff.wait()
        return batch

    def _tell(self, news: Sequence[Callable[[], None]]) -> None:
        """Posts all at once: every post wakes the loop, and takes turns with it."""
        if news:
            self._post(_in_order, tuple(news))

    def _runs(self, batch: Batch[Item, Result]) -> Iterator[Run[Item, Result]]:
        """The whole batch, where there is one."""
        if batch.jobs:
            yield from self._halved(batch.jobs, batch.alone)

    def _halved(self, jobs: Sequence[Job[Item, Result]], alone: bool) -> Iterator[Run[Item, Result]]:
        """All jobs at once; where that fails, each half of them, so that only those to blame fail, and soon."""
        run = self._run(jobs, alone, final=len(jobs) == 1)
        yield run
        if run.final:
            return
        for half in (jobs[: len(jobs) // 2], jobs[len(jobs) // 2 :]):
            if wanted := [job for job in half if not job.abandoned]:
                yield from self._halved(wanted, alone)

    def _run(self, jobs: Sequence[Job[Item, Result]], alone: bool, *, final: bool) -> Run[Item, Result]:
        begin = self._clock()
        try:
            values = self._run_batch(jobs[0].group, [job.work.item for job in jobs], alone)
            if len(values) != len(jobs):
                raise RuntimeError(f"the engine gave {len(values)} results for {len(jobs)} items")
        except BaseException as error:  # whatever it is, the thread must live on, and the items must be answered
            return Run(jobs, (), error, self._clock() - begin, final)
        return Run(jobs, values, None, self._clock() - begin, True)


def _in_order(news: Sequence[Callable[[], None]]) -> None:
    for tell in news:
        tell()
