"""A scheduler whose engine does as it is told, and what it reported."""

import asyncio
import threading
from collections.abc import Sequence

from services.runtime.batching import BatchLimits
from services.runtime.queue_admission import QueueLimits
from services.runtime.scheduler import ReuseLimits, Scheduler
from services.runtime.work import Done, Reuse, Terms, Work

FAR = 1e9


class Engine:
    """Computes a batch only when told to; remembers every batch."""

    def __init__(self, poisoned: Sequence[int] = ()) -> None:
        self.batches: list[list[int]] = []
        self.poisoned = set(poisoned)
        self._gate = threading.Semaphore(0)
        self._started = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def __call__(self, group: str, items: Sequence[int], alone: bool) -> list[int]:
        self.batches.append(list(items))
        self._loop.call_soon_threadsafe(self._started.set)
        assert self._gate.acquire(timeout=60), "the test forgot to release the engine"
        if self.poisoned & set(items):
            raise ArithmeticError("poison")
        return [item * 10 for item in items]

    def release(self, batches: int = 100_000) -> None:
        self._gate.release(batches)

    async def started(self) -> None:
        """Waits until the engine holds a batch."""
        await asyncio.wait_for(self._started.wait(), 60)


class Watch:
    """Counts what the scheduler reports."""

    def __init__(self) -> None:
        self.waiting = (0, 0)
        self.most = (0, 0)
        self.running: list[int] = []
        self.dropped = {"cancelled": 0, "expired": 0}
        self.batches: list[tuple[int, int, int]] = []
        self.begun = 0
        self.reused = {Reuse.CACHED: 0, Reuse.DEDUPLICATED: 0}

    def queue_changed(self, items: int, tokens: int) -> None:
        self.waiting = (items, tokens)
        self.most = (max(self.most[0], items), max(self.most[1], tokens))

    def running_changed(self, tokens: int) -> None:
        self.running.append(tokens)

    def batch_done(self, rows: int, tokens: int, padded_tokens: int, seconds: float) -> None:
        assert seconds >= 0
        self.batches.append((rows, tokens, padded_tokens))

    def item_started(self, queue_seconds: float) -> None:
        assert queue_seconds >= 0
        self.begun += 1

    def items_dropped(self, reason: str, count: int) -> None:
        self.dropped[reason] += count

    def item_reused(self, how: Reuse) -> None:
        self.reused[how] += 1


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """A scheduler with a commanded engine; must be made inside an event loop."""

    def __init__(
        self,
        *,
        rows: int = 4,
        tokens: int = 100,
        items: int = 1000,
        poisoned: Sequence[int] = (),
        reuse: ReuseLimits = ReuseLimits(),
    ) -> None:
        self.engine, self.watch, self.clock = Engine(poisoned), Watch(), Clock()
        self.scheduler: Scheduler[int, int] = Scheduler(
            self.engine, QueueLimits(items, 10_000), BatchLimits(rows, tokens), self.watch, reuse, self.clock
        )

    def submit(
        self, *items: int, size: int = 10, priority: int = 0, deadline: float = FAR, caller: str = ""
    ) -> asyncio.Task:
        works = [Work(item, size, "group", item) for item in items]
        return asyncio.create_task(self.scheduler.run(works, Terms(priority, deadline, caller)))

    async def occupy(self) -> asyncio.Task:
        """Gives the engine a batch that it holds until released, so that what follows waits."""
        task = self.submit(0)
        await self.engine.started()
        return task


def values(outcomes: Sequence) -> list:
    return [outcome.value if isinstance(outcome, Done) else outcome.kind for outcome in outcomes]


async def settle() -> None:
    """Lets tasks that were just made or cancelled run."""
    for _ in range(4):
        await asyncio.sleep(0)
