"""One batch under way: which completions of which calls it draws, and what a step of it means for each call."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from palate.client import VersionSpan
from services.policy.engine import Batch, DecodeStep, DrawnToken
from services.policy.jobs import Drawn, Failed, Group, Job, Wanted
from services.policy.mailbox import Piece
from services.policy.staging import Served
from services.runtime.tracebacks import whereabouts

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Happened:
    """What a step did to one job.

    Attributes:
        job: Whose.
        events: For its reader.
        tokens: So many of its open tokens are not open any more.
        seconds: Of the step.
        error: It cannot go on, and why.
    """

    job: Job[Any]
    events: list[Any] = field(default_factory=list)
    tokens: int = 0
    seconds: float = 0.0
    error: Exception | None = None


@dataclass(slots=True)
class _Running:
    """A completion that is being drawn, with all that was drawn so far."""

    job: Job[Any]
    group: Group
    wanted: Wanted
    token_ids: list[int]
    logprobs: list[float]
    stopped: bool = False

    def draw(self, token: DrawnToken) -> None:
        """Takes a token in; what comes after the text has ended counts for nothing."""
        if not self.stopped:
            self.token_ids.append(token.token_id)
            self.logprobs.append(token.logprob)
            ends_text = self.wanted.ends_text
            self.stopped = ends_text is not None and ends_text(self.token_ids)

    def undraw(self, count: int) -> None:
        """Back to its first so many tokens, with which it had not stopped."""
        del self.token_ids[count:], self.logprobs[count:]
        self.stopped = False

    def piece(self, begin: int, last: bool) -> Piece:
        """The tokens from `begin` on."""
        wanted = self.wanted
        return Piece(
            wanted.prompt_index, wanted.completion_index, begin, self.token_ids[begin:], self.logprobs[begin:], last
        )

    def drawn(self, stopped: bool) -> Drawn:
        """The completion, which has ended."""
        wanted = self.wanted
        return Drawn(
            wanted.prompt_index,
            wanted.completion_index,
            tuple(self.token_ids),
            tuple(self.logprobs),
            stopped or self.stopped,
            wanted.versions,
        )

    def failed(self, cause: str) -> Failed:
        """The completion, of which nothing more comes."""
        return Failed(self.wanted.prompt_index, self.wanted.completion_index, cause)

    def put_aside(self, noise: Any) -> Wanted:
        """What is wanted now: the rest."""
        row = replace(self.wanted.row, token_ids=tuple(self.token_ids), noise=noise)
        return replace(self.wanted, row=row, logprobs=tuple(self.logprobs))


class Lane:
    """A batch, the weights that it draws from, and its completions.

    Args:
        open_batch: Gives a batch without rows.
        served: Its weights.
        apart: No other row may join a group that it draws.
        closed: No other row may join, whatever it draws.
    """

    def __init__(
        self, open_batch: Callable[[], Batch], served: Served[Any], *, apart: bool, closed: bool = False
    ) -> None:
        self._open_batch = open_batch
        self._batch: Batch | None = None  # until the first row needs it
        self.served = served
        self.apart = apart
        self.closed = closed
        self._rows: dict[int, _Running] = {}
        self._noise: Mapping[int, Any] = {}  # of rows that are here before the batch

    def __len__(self) -> int:
        return len(self._rows)

    def tokens_with(self, wanted: Sequence[Wanted] = ()) -> int:
        """Tokens of its rows and of these at most, padding included."""
        rows = [one.row for one in (*(running.wanted for running in self._rows.values()), *wanted)]
        return len(rows) * max((row.most_tokens for row in rows), default=0)

    @property
    def jobs(self) -> list[Job[Any]]:
        """The calls that it draws for."""
        return list(dict.fromkeys(running.job for running in self._rows.values()))

    @property
    def whole(self) -> bool:
        """Whether its rows can only go on, or fail, together."""
        return len(self._rows) == 1 or any(running.group.strict for running in self._rows.values())

    def begin(self, job: Job[Any], group: Group) -> None:
        """Takes a call's group in."""
        self._opened().join([one.row for one in group.wanted])
        job.running += len(group.wanted)
        for one in group.wanted:
            wanted = replace(one, versions=_spans(one, self.served))
            self._rows[one.row.key] = _Running(job, group, wanted, list(one.row.token_ids), list(one.logprobs))

    def remove(self, job: Job[Any]) -> None:
        """Frees the places of a call."""
        self._leave([key for key, running in self._rows.items() if running.job is job])

    def put_back(self) -> None:
        """Gives the completions that no weights are required of back to their calls, before all else these want."""
        left = self._leave([key for key, running in self._rows.items() if running.group.pinned is None])
        groups: dict[int, tuple[Job[Any], Group, list[Wanted]]] = {}
        for running, noise in left:
            key = id(running.group) if self.apart else running.wanted.row.key
            groups.setdefault(key, (running.job, running.group, []))[2].append(running.put_aside(noise))
        for job, group, wanted in reversed(groups.values()):
            job.groups.appendleft(replace(group, wanted=tuple(wanted)))

    def step(self) -> list[Happened]:
        """Draws one token per row; what that did to every job that it drew for.

        Raises:
            Exception: Nothing was drawn: the rows are as before. Their batch is not; what can be done with the lane
                then is to halve it, or to let it fail.
        """
        before = {key: len(running.token_ids) for key, running in self._rows.items()}
        try:
            step = self._opened().step()
            ended = self._take_in(step)
        except Exception:
            for key, count in before.items():
                self._rows[key].undraw(count)
            raise
        return self._told({token.key: before[token.key] for token in step.tokens}, ended)

    def halves(self) -> list[Lane]:
        """Two lanes with half of the rows each, which go on from where they stand, in batches of their own."""
        noise = self._abandon()
        rows, middle = list(self._rows.items()), len(self._rows) // 2
        halves = [Lane(self._open_batch, self.served, apart=self.apart, closed=True) for _ in range(2)]
        for half, part in zip(halves, (rows[:middle], rows[middle:]), strict=True):
            half._rows, half._noise = dict(part), noise
        return halves

    def fail(self, cause: str) -> list[Happened]:
        """Gives up all of its rows; what that does to every job that it drew for."""
        self._abandon()
        happened = {job: Happened(job) for job in self.jobs}
        for running in self._rows.values():
            self._ended(running, running.failed(cause), happened)
        self._rows.clear()
        return list(happened.values())

    def _opened(self) -> Batch:
        """The batch; one that is new takes in the rows that are here already."""
        if self._batch is None:
            batch = self._open_batch()
            if self._rows:
                batch.join([running.put_aside(self._noise.get(key)).row for key, running in self._rows.items()])
            self._batch, self._noise = batch, {}
        return self._batch

    def _abandon(self) -> Mapping[int, Any]:
        """Takes all rows out of a batch that broke off; where the noise of those stands that say so."""
        batch, self._batch = self._batch, None
        try:
            return self._noise if batch is None else batch.leave(list(self._rows))
        except Exception as error:  # it is in whatever state it is, and not used again
            logger.warning("a batch whose step failed does not let its rows go\n%s", whereabouts(error))
            return {}

    def _take_in(self, step: DecodeStep) -> dict[int, bool]:
        """Takes the tokens in; the rows that they end, and which of these stopped by themselves."""
        ended = dict(step.ended)
        for token in step.tokens:
            self._rows[token.key].draw(token)
        cut = [token.key for token in step.tokens if self._rows[token.key].stopped and token.key not in ended]
        self._opened().leave(cut)
        return ended | dict.fromkeys(cut, True)

    def _told(self, begins: dict[int, int], ended: dict[int, bool]) -> list[Happened]:
        """What a step did that drew, for each of these rows, the tokens from there on."""
        happened = {job: Happened(job) for job in self.jobs}
        for key, begin in begins.items():
            running = self._rows[key]
            happened[running.job].tokens += len(running.token_ids) - begin
            if running.job.stream:
                happened[running.job].events.append(running.piece(begin, key in ended))
        for key, stopped in ended.items():
            running = self._rows.pop(key)
            self._ended(running, running.drawn(stopped), happened)
        return list(happened.values())

    def _ended(self, running: _Running, event: Drawn | Failed, happened: dict[Job[Any], Happened]) -> None:
        running.job.running -= 1
        happened[running.job].events.append(event)
        happened[running.job].tokens += running.wanted.row.sampling.max_new_tokens - len(running.token_ids)

    def _leave(self, keys: Collection[int]) -> list[tuple[_Running, Any]]:
        noise = self._batch.leave(list(keys)) if keys and self._batch is not None else self._noise
        left = [(self._rows.pop(key), noise.get(key)) for key in keys]
        for running, _ in left:
            running.job.running -= 1
        return left


def _spans(wanted: Wanted, served: Served[Any]) -> tuple[VersionSpan, ...]:
    """Which weights draw which tokens, where these draw from now on."""
    begin = len(wanted.row.token_ids)
    before = tuple(span for span in wanted.versions if span.first_token < begin)
    if before and before[-1].version == served.version:
        return before
    return (*before, VersionSpan(begin, served.version))
