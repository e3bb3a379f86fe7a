"""One batch under way: which completions of which calls it draws, and what a step of it means for each call."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from palate.client import VersionSpan
from services.policy.engine import Batch, DecodeStep, DrawnToken
from services.policy.jobs import Drawn, Group, Job, Wanted
from services.policy.mailbox import Piece
from services.policy.staging import Served


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

    def put_aside(self, noise: Any) -> Wanted:
        """What is wanted now: the rest."""
        row = replace(self.wanted.row, token_ids=tuple(self.token_ids), noise=noise)
        return replace(self.wanted, row=row, logprobs=tuple(self.logprobs))


class Lane:
    """A batch, the weights that it draws from, and its completions.

    Args:
        batch: Without rows.
        served: Its weights.
        apart: No other row may join a group that it draws.
    """

    def __init__(self, batch: Batch, served: Served[Any], *, apart: bool) -> None:
        self._batch = batch
        self.served = served
        self.apart = apart
        self._rows: dict[int, _Running] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def tokens_with(self, wanted: Sequence[Wanted] = ()) -> int:
        """Tokens of its rows and of these at most, padding included."""
        rows = [one.row for one in (*(running.wanted for running in self._rows.values()), *wanted)]
        return len(rows) * max((row.most_tokens for row in rows), default=0)

    def begin(self, job: Job[Any], group: Group) -> None:
        """Takes a call's group in."""
        self._batch.join([one.row for one in group.wanted])
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
        """Draws one token per row; what that did to every job that it drew for."""
        happened = {running.job: Happened(running.job) for running in self._rows.values()}
        begin = time.monotonic()
        try:
            self._tell(self._batch.step(), happened)
        except Exception as error:
            for one in happened.values():
                one.error = error
        seconds = time.monotonic() - begin
        for one in happened.values():
            one.seconds = seconds
        return list(happened.values())

    def _tell(self, step: DecodeStep, happened: dict[Job[Any], Happened]) -> None:
        ended = dict(step.ended)
        begins = {token.key: len(self._rows[token.key].token_ids) for token in step.tokens}
        for token in step.tokens:
            self._rows[token.key].draw(token)
        cut = [key for key in begins if self._rows[key].stopped and key not in ended]
        self._batch.leave(cut)
        ended |= dict.fromkeys(cut, True)
        for key, begin in begins.items():
            running = self._rows[key]
            happened[running.job].tokens += len(running.token_ids) - begin
            if running.job.stream:
                happened[running.job].events.append(running.piece(begin, key in ended))
        for key, stopped in ended.items():
            self._end(self._rows.pop(key), stopped, happened)

    def _end(self, running: _Running, stopped: bool, happened: dict[Job[Any], Happened]) -> None:
        running.job.running -= 1
        happened[running.job].events.append(running.drawn(stopped))
        happened[running.job].tokens += running.wanted.row.sampling.max_new_tokens - len(running.token_ids)

    def _leave(self, keys: Collection[int]) -> list[tuple[_Running, Any]]:
        noise = self._batch.leave(list(keys)) if keys else {}
        left = [(self._rows.pop(key), noise[key]) for key in keys]
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
