"""Draws and scores rollouts while the trainer learns, within a bound on how old their weights may be."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from palate.client.types import PolicyVersion
from trainer.ppo.choices import StaleRule
from trainer.ppo.fill import Drawn
from trainer.ppo.metrics import StageClock
from trainer.ppo.state import RunState
from trainer.ppo.supply import RolloutSide, Supplied
from trainer.types import DropCause, Dropped, DroppedRollout, FilledBatch, PromptDraw, ScoredRollout


def has_capacity(max_staleness: int, step: int, batch_size: int, accepted: int) -> bool:
    """Whether one more batch may be begun while weights of `step` are served and nothing else is being drawn.

    Of a run's rollouts (max_staleness + step + 1) · batch_size may be begun by then: AReaL, arXiv 2505.24298,
    section 5.1. They are learnt from in the order in which they were begun, a batch in each step, so the last one that
    this admits is learnt from at step + max_staleness.

    Args:
        max_staleness: Steps by which a rollout's weights may be behind those that learn from it.
        step: Of the newest weights.
        batch_size: Rollouts learnt from in a step.
        accepted: Rollouts of the run that are done, those that were learnt from among them.
    """
    return accepted + batch_size <= (max_staleness + step + 1) * batch_size


@dataclass(frozen=True, slots=True)
class OverlapSettings:
    """How far rollouts may run ahead.

    Attributes:
        max_staleness: Steps by which a rollout's weights may be behind those that learn from it; at least 1.
        stale: "wait" begins a rollout only where it cannot become older; "drop" begins it as long as there is room,
            and drops what has become older by the time it would be learnt from.
        total_steps: Of the run: nothing is drawn that no step would learn from.
    """

    max_staleness: int
    stale: StaleRule
    total_steps: int


@dataclass(frozen=True, slots=True)
class _Portion:
    """What a finished batch tells beside its rollouts."""

    dropped: tuple[Dropped, ...]
    drop_window: tuple[bool, ...]
    clock: StageClock


@dataclass(frozen=True, slots=True)
class _Group:
    """The completions of a prompt, ready to be learnt from; the last group of a portion tells the rest of it."""

    position: int
    scored: tuple[ScoredRollout, ...]
    last_of: _Portion | None

    def staleness(self, step: int) -> int:
        """Of its oldest rollout at `step`."""
        return step - min(one.rollout.oldest_version.step for one in self.scored)


class OverlapSupply:
    """One thread draws and scores a batch at a time into a pool; the loop takes what is oldest and not too old.

    The pool holds at most max_staleness + 1 batches. What goes wrong in the thread is raised to whoever takes next.

    Args:
        side: Makes the batches; nobody else uses it meanwhile.
        settings: How far rollouts may run ahead.
        hang_up: Ends all calls that `side` has begun; asked once, by `close`.
    """

    def __init__(self, side: RolloutSide, settings: OverlapSettings, hang_up: Callable[[], None]) -> None:
        self._side = side
        self._settings = settings
        self._hang_up = hang_up
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()
        # All of what follows is read and written under that lock.
        self._pool: deque[_Group] = deque()
        self._version = PolicyVersion()
        self._accepted = self._number = self._position = 0
        self._drop_window: tuple[bool, ...] = ()
        self._error: BaseException | None = None
        self._closed = False

    def take(self, state: RunState, version: PolicyVersion, clock: StageClock) -> Supplied:
        """As `Supply`; on the first call the thread begins where `state` stands."""
        dropped: list[Dropped] = []
        count = self._side.batch_size // self._side.group_size
        with clock.stage("wait"), self._changed:
            self._version = version
            if self._thread is None:
                self._begin(state)
            self._changed.notify_all()
            dropped += self._drop_stale(state.step, clock)
            while len(self._pool) < count:
                if self._error is not None:
                    raise self._error
                self._changed.wait()
                dropped += self._drop_stale(state.step, clock)
            groups = [self._pool.popleft() for _ in range(count)]
            dropped += self._finish(groups, clock)
            self._changed.notify_all()
            position = self._pool[0].position if self._pool else self._position
            scored = tuple(one for group in groups for one in group.scored)
            filled = FilledBatch(scored, tuple(dropped), position - state.position)
            return Supplied(filled, position, self._drop_window)

    def close(self) -> None:
        """Ends the thread, and the calls that it is in."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._hang_up()
            self._thread.join()

    def _begin(self, state: RunState) -> None:
        self._number, self._position = state.step, state.position
        self._accepted = state.step * self._side.batch_size
        self._drop_window = state.drop_window
        self._thread = threading.Thread(target=self._run, name="overlap", daemon=True)
        self._thread.start()

    def _drop_stale(self, step: int, clock: StageClock) -> list[Dropped]:
        """Takes out of the pool what is too old for `step`; it counts as never accepted, so that others are begun."""
        bound = self._settings.max_staleness
        stale = [group for group in self._pool if group.staleness(step) > bound]
        if not stale:
            return []
        self._pool = deque(group for group in self._pool if group.staleness(step) <= bound)
        self._accepted -= len(stale) * self._side.group_size
        self._changed.notify_all()
        told = f"drawn more than {bound} steps before"
        rollouts = [one.rollout for group in stale for one in group.scored]
        return [*(DroppedRollout(one, DropCause.STALE, told) for one in rollouts), *self._finish(stale, clock)]

    def _finish(self, groups: Sequence[_Group], clock: StageClock) -> list[Dropped]:
        """Settles portions whose last group has left the pool; returns what got no score in them."""
        portions = [group.last_of for group in groups if group.last_of is not None]
        for portion in portions:
            self._drop_window = portion.drop_window
            clock.add(portion.clock)
        return [one for portion in portions for one in portion.dropped]

    def _run(self) -> None:
        try:
            while self._wait_for_room():
                self._produce()
        except BaseException as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _wait_for_room(self) -> bool:
        """Returns when a batch may be begun; False where none will be."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._may_begin())
            return not self._closed

    def _may_begin(self) -> bool:
        size, settings = self._side.batch_size, self._settings
        if self._accepted >= settings.total_steps * size:
            return False
        if settings.stale == "drop":
            return len(self._pool) * self._side.group_size <= settings.max_staleness * size
        return has_capacity(settings.max_staleness, self._version.step, size, self._accepted)

    def _produce(self) -> None:
        with self._changed:
            number, position = self._number, self._position
        clock = StageClock()
        filled = self._side.fill(number, position, self._roll, clock)
        portion = _Portion(filled.dropped, self._side.drop_limit.window, clock)
        with self._changed:
            self._pool.extend(_groups(filled, position, self._side.group_size, portion))
            self._accepted += len(filled.scored)
            self._number, self._position = number + 1, position + filled.prompts
            self._changed.notify_all()

    def _roll(self, draws: Sequence[PromptDraw]) -> list[Drawn]:
        with self._changed:
            version = self._version
        oldest = max(0, version.step - self._settings.max_staleness)
        return self._side.collector.collect(draws, version, oldest)


def _groups(filled: FilledBatch, position: int, size: int, portion: _Portion) -> list[_Group]:
    """The groups of a batch whose prompts begin at `position`.

    A prompt without any score is counted with the last group: who goes on from a group before that draws it again.
    """
    starts = range(0, len(filled.scored), size)
    return [
        _Group(position + place, filled.scored[start : start + size], portion if start == starts[-1] else None)
        for place, start in enumerate(starts)
    ]
