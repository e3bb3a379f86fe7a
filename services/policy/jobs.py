"""What a call asks of the engine, cut into what the engine's thread can put beside the work of others."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic

from palate.client import VersionSpan
from services.policy.engine import Row
from services.policy.mailbox import EventT, Mailbox
from services.policy.staging import Served
from services.policy.texts import EndsText


@dataclass(frozen=True, slots=True)
class Drawn:
    """A finished completion of a call.

    Attributes:
        prompt_index: Which of the call's prompts it continues.
        completion_index: Which of the prompt's completions it is.
        token_ids: The drawn tokens, (T,).
        logprobs: Of each, in nats, (T,).
        stopped: It ended by itself; False = the length limit cut it.
        versions: Which weights drew which tokens; at least one span.
    """

    prompt_index: int
    completion_index: int
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    stopped: bool
    versions: tuple[VersionSpan, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """A completion of a call that the engine fails on; nothing more comes of it.

    Attributes:
        prompt_index: Which of the call's prompts it continues.
        completion_index: Which of the prompt's completions it is.
        cause: Type of what the engine raised.
    """

    prompt_index: int
    completion_index: int
    cause: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """A completion of a call that is to be drawn, or to be drawn on.

    Attributes:
        prompt_index: Which of the call's prompts it continues.
        completion_index: Which of the prompt's completions it is.
        row: The same for the engine.
        ends_text: Whether its text has ended, by the tokens so far; None = only length and end-of-sequence end it.
        logprobs: Of the row's tokens so far, in nats, (T,).
        versions: Which weights drew which of them.
    """

    prompt_index: int
    completion_index: int
    row: Row
    ends_text: EndsText | None = None
    logprobs: tuple[float, ...] = ()
    versions: tuple[VersionSpan, ...] = ()


@dataclass(frozen=True, slots=True)
class Group:
    """Completions that begin together.

    Attributes:
        wanted: At least one; exactly one where others may be drawn beside it.
        apart: They are drawn in a batch that no other row joins, so that its shape depends on them alone.
        pinned: The only weights that may draw them; None = those served when they begin.
        strict: Which of them are drawn together is part of what was promised.
    """

    wanted: tuple[Wanted, ...]
    apart: bool = False
    pinned: Served[Any] | None = None
    strict: bool = False

    @property
    def fresh(self) -> bool:
        """Whether nothing of it has been drawn; else it gave up its places for other weights, and takes them again."""
        return not self.wanted[0].row.token_ids


@dataclass(frozen=True, slots=True)
class Slice(Generic[EventT]):
    """A part of a call that is one forward pass.

    Attributes:
        tokens: So many are computed.
        run: Gives what it caused.
    """

    tokens: int
    run: Callable[[], Iterable[EventT]]


@dataclass(slots=True)
class Timing:
    """Seconds of a call: from its admission to its first work, and of the steps that worked for it."""

    queue_seconds: float = 0.0
    compute_seconds: float = 0.0
    submitted: float = field(default_factory=time.monotonic)


class Job(Generic[EventT]):
    """A call's work: groups and slices going in, events coming out. Make it in the event loop that reads it.

    Args:
        max_events: How many events it causes at most, the pieces of one completion counted once.
        deadline: `time.monotonic` seconds after which it is worth nothing.
        groups: Completions to draw.
        slices: Passes to run.
        stream: Tell of tokens as they are drawn.
        caller: Whose it is, as `services.runtime.callers` names him.
    """

    def __init__(
        self,
        max_events: int,
        deadline: float,
        *,
        groups: Iterable[Group] = (),
        slices: Iterable[Slice[EventT]] = (),
        stream: bool = False,
        caller: str = "",
    ) -> None:
        self.caller = caller
        self.groups = deque(groups)
        self.slices = deque(slices)
        self.stream = stream
        self.deadline = deadline
        self.timing = Timing()
        self.mailbox: Mailbox[EventT] = Mailbox(max_events)
        self.running = 0  # completions that are being drawn
        self.open_tokens = sum(part.tokens for part in self.slices) + sum(
            wanted.row.sampling.max_new_tokens for group in self.groups for wanted in group.wanted
        )
        self._cancelled = False

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return not (self.groups or self.slices or self.running)

    @property
    def cancelled(self) -> bool:
        """Whether its reader has left."""
        return self._cancelled

    @property
    def gone(self) -> bool:
        """Whether its work is worth nothing any more."""
        return self._cancelled or time.monotonic() >= self.deadline

    def begun(self) -> None:
        """Says that its first work is about to be done."""
        timing = self.timing
        timing.queue_seconds = timing.queue_seconds or time.monotonic() - timing.submitted

    def events(self) -> AsyncIterator[EventT]:
        """What the work caused, as it happens.

        Raises:
            Expired: The deadline passed.
            Exception: What a part of it raised.
        """
        return self.mailbox.events()

    def cancel(self) -> None:
        """Says that nobody reads any more; the engine leaves the job after the step it is in."""
        self._cancelled = True
