"""Between event loop and engine threads: the one batch that is ready while others are computed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic

from services.runtime.work import Item, Job, Result


@dataclass(slots=True, eq=False)
class Batch(Generic[Item, Result]):
    """Jobs of one group for one forward pass.

    Attributes:
        jobs: At least one when it is offered; some may be withdrawn, or be late when it is taken.
        seconds: How long it will take at most, as far as is known.
        alone: Nothing else waited or was computed when it was offered.
        begun: When the engine took it.
    """

    jobs: list[Job[Item, Result]]
    seconds: float
    alone: bool = False
    begun: float = 0.0


class Handoff(Generic[Item, Result]):
    """Holds the next batch. The loop may replace it, and withdraw jobs from it, until the moment the engine takes it.

    Args:
        clock: Monotonic seconds, from any thread.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._next: Batch[Item, Result] | None = None
        self._stopped = False

    def replace(self, old: Batch[Item, Result] | None, new: Batch[Item, Result] | None) -> bool:
        """Offers `new` instead of `old`; False if that is not there any more, because the engine has taken it."""
        with self._changed:
            if self._next is not old:
                return False
            self._next = new
            self._changed.notify()
            return True

    def withdraw(self, job: Job[Item, Result]) -> bool:
        """Keeps a job from being taken; False if it has been."""
        with self._changed:
            if job.taken:
                return False
            if self._next is not None and job in self._next.jobs:
                self._next.jobs.remove(job)
            return True

    def stop(self) -> None:
        """Lets who waits for a batch go without one."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def wait(self) -> Batch[Item, Result] | None:
        """The next batch as soon as there is one; None once stopped. Blocks."""
        with self._changed:
            self._changed.wait_for(lambda: self._next is not None or self._stopped)
            return self.take()

    def take(self) -> Batch[Item, Result] | None:
        """The next batch without what can be in time for nobody any more; that goes on waiting. None if there is none.

        The batch may turn out empty.
        """
        with self._changed:
            batch, self._next = self._next, None
            if batch is None:
                return None
            now = batch.begun = self._clock()
            batch.jobs = [job for job in batch.jobs if job.latest > now and job.latest >= now + batch.seconds]
            for job in batch.jobs:
                job.taken = True
            return batch
