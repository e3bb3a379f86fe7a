"""A scheduler in simulated time: an engine of known cost, callers, and what became of their items."""

import asyncio
import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.runtime.batching import BatchLimits, padded_tokens
from services.runtime.engine_thread import Run
from services.runtime.errors import Overloaded
from services.runtime.queue_admission import QueueLimits
from services.runtime.scheduler import Scheduler
from services.runtime.work import Done, Terms, Work


class Silent:
    """An observer that is not interested."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args: None


@dataclass
class Ended:
    """What became of an item."""

    caller: str
    size: int
    arrived: float
    answered: float
    outcome: str  # "done", "expired", "refused"
    group: str = "model"


class SimulatedEngine:
    """Stands where the engine's thread would: takes what lies ready, and is done when its time has passed."""

    def __init__(self, simulation: "Simulation", handoff: Any, listener: Any) -> None:
        self.simulation, self.handoff, self.listener = simulation, handoff, listener
        self.busy = False

    def go_on(self) -> None:
        if self.busy or (batch := self.handoff.take()) is None:
            return
        self.busy = bool(batch.jobs)
        self.listener.began(batch)
        if not batch.jobs:
            self.listener.ended(batch)
            return
        seconds = self.simulation.seconds([job.size for job in batch.jobs], batch.jobs[0].group)
        self.simulation.at(self.simulation.now + seconds, lambda: self.end(batch, seconds))

    def end(self, batch: Any, seconds: float) -> None:
        self.busy = False
        sizes = [job.size for job in batch.jobs]
        self.simulation.padded += padded_tokens(sizes)
        self.simulation.computed += sum(sizes)
        self.simulation.batches.append(len(sizes))
        late = [job.size for job in batch.jobs if job.latest < self.simulation.now]
        self.simulation.late_seconds += seconds * sum(late) / sum(sizes)
        self.simulation.busy_seconds += seconds
        self.listener.ran(batch, Run(batch.jobs, [job.work.item for job in batch.jobs], None, seconds, True))
        self.listener.ended(batch)

    def join(self) -> None:
        assert not self.busy


@dataclass
class Simulation:
    """Everything happens in one event loop, at the times of a heap; must be made inside the loop.

    Args:
        fixed, per_token: Seconds of a batch, and of each of its padded tokens.
        slower: Group → how many times as long its tokens take.
        noise: Standard deviation of the logarithm of what batches take, relative to that.
    """

    fixed: float = 0.004
    per_token: float = 20e-6
    noise: float = 0.1
    seed: int = 0
    now: float = 0.0
    padded: int = 0
    computed: int = 0
    late_seconds: float = 0.0
    busy_seconds: float = 0.0
    slower: dict[str, float] = field(default_factory=dict)
    batches: list[int] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self._events: list[tuple[float, int, Callable[[], Any]]] = []
        self._count = 0
        self._tasks: set[asyncio.Task] = set()
        self.engine: SimulatedEngine | None = None
        self.scheduler: Scheduler[int, int] = Scheduler(
            lambda group, items, alone: items, QueueLimits(4096, 1_048_576), BatchLimits(64, 8192), Silent(),
            clock=lambda: self.now, start_engine=self._start,
        )  # fmt: skip

    def _start(self, run_batch: Any, handoff: Any, clock: Any, listener: Any, post: Any) -> SimulatedEngine:
        self.engine = SimulatedEngine(self, handoff, listener)
        return self.engine

    def seconds(self, sizes: Sequence[int], group: str) -> float:
        per_token = self.per_token * self.slower.get(group, 1.0)
        return (self.fixed + per_token * padded_tokens(sizes)) * self.random.lognormvariate(0.0, self.noise)

    def at(self, moment: float, happen: Callable[[], Any]) -> None:
        self._count += 1
        heapq.heappush(self._events, (moment, self._count, happen))

    async def until(self, end: float) -> None:
        """Lets everything happen up to `end`."""
        while self._events and self._events[0][0] <= end:
            self.now, _, happen = heapq.heappop(self._events)
            happen()
            await self._settle()

    async def stop(self) -> None:
        """Everybody leaves; what is being computed ends."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.finish()

    async def finish(self) -> None:
        """Lets everything happen that still will."""
        await self.until(float("inf"))
        await self.scheduler.close()

    async def _settle(self) -> None:
        for _ in range(4):
            await asyncio.sleep(0)
        if self.engine is not None:
            self.engine.go_on()

    def send(
        self, caller: str, size: int, timeout: float, then: Callable[[], Any] | None = None, group: str = "model"
    ) -> None:
        """One item of a size, in a call of its own."""
        self._count += 1
        work = Work(self._count, size, group, self._count)
        task = asyncio.create_task(self._call(caller, work, Terms(0, self.now + timeout, caller), then))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _call(self, caller: str, work: Work, terms: Terms, then: Callable[[], Any] | None) -> None:
        arrived = self.now
        try:
            (outcome,) = await self.scheduler.run([work], terms)
            what = "done" if isinstance(outcome, Done) else outcome.kind.value
        except Overloaded:
            what = "refused"
        self.ended.append(Ended(caller, work.size, arrived, self.now, what, str(work.group)))
        if then is not None:
            then()

    def closed_loop(self, callers: int, sizes: tuple[int, int], timeout: float = 1e6) -> None:
        """Callers that each send one item at a time, and the next as soon as it is answered."""

        def again(caller: str) -> None:
            self.send(caller, self.random.randint(*sizes), timeout, then=lambda: again(caller))

        for number in range(callers):
            self.at(0.0, lambda number=number: again(f"caller-{number}"))

    def open_loop(
        self,
        caller: str,
        rate: float,
        sizes: tuple[int, int],
        timeout: float,
        end: float,
        begin: float = 0.0,
        group: str = "model",
    ) -> None:
        """A caller that sends on average so many items a second, whatever becomes of them."""

        def arrive() -> None:
            self.send(caller, self.random.randint(*sizes), timeout, group=group)
            if (following := self.now + self.random.expovariate(rate)) < end:
                self.at(following, arrive)

        self.at(begin, arrive)
