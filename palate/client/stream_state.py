"""A stream of items as both clients keep it: what is sent, what is out, and what an answer or a break means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import grpc
from google.protobuf.duration_pb2 import Duration

from palate.client import checks, convert
from palate.client import types as t
from palate.client.channel import ChannelOptions, checked_size
from palate.client.errors import (
    CallError,
    DeadlineExceeded,
    InternalError,
    InvalidInput,
    MessageTooLarge,
    Unavailable,
    call_error,
)
from palate.client.reward_requests import score_item
from palate.client.window import Patience, Window
from palate.v1 import reward_service_pb2 as reward

Pair: TypeAlias = tuple[t.ContentLike, t.ContentLike]
"""(prompt, completion)."""

EACH_PAIR = "pairs (prompt, completion)"
"""What a stream takes, in words."""

SERVICE = "palate.v1.RewardService"
"""What is called."""

_SERVER_SECONDS = 300.0
"""What servers grant an item that brings no timeout, unless configured otherwise."""

_SLACK_SECONDS = 30.0
"""How much later than an item's time its answer may come."""

END_SECONDS = 5.0
"""How long to wait for the server's good-bye once everything is answered."""

_MAX_BREAKS = 10


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """How a stream behaves.

    Attributes:
        timeout: Seconds an item has from the moment the server reads it; None = the server's maximum.
        window: Items that may be without an answer.
        patience: Seconds without an answer after which a broken stream is not opened again.
    """

    timeout: float | None
    window: int
    patience: float

    def __post_init__(self) -> None:
        checks.count(self.window, "window", smallest=1)
        if self.timeout is not None:
            checks.seconds(self.timeout, "timeout_per_item")
        if not checks.number(self.patience, "patience") >= 0:
            raise InvalidInput(f"patience is {self.patience}; give seconds, 0 or more")


class StreamState:
    """Bookkeeping of one stream across its connections; does no I/O.

    Args:
        target: For messages.
        score_options: How to score. Once a reply has come its revision is insisted on: after a break another replica
            may answer, and scores of two revisions do not mix.
        options: How the stream behaves.
        channel: Size limits.
    """

    def __init__(
        self, target: str, score_options: reward.ScoreOptions, options: StreamOptions, channel: ChannelOptions
    ) -> None:
        self.target = target
        self.provenance: t.Provenance | None = None
        self._score_options = score_options
        self._options = options
        self._channel = channel
        self._taken = 0
        self._window: Window[reward.ScoreStreamRequest | t.Failed] = Window(
            options.window, channel.retry_buffer_bytes, _MAX_BREAKS
        )
        self._patience = Patience(options.patience)
        self._answering = False

    @property
    def has_room(self) -> bool:
        """Whether one more item may be taken."""
        return self._window.has_room

    @property
    def unanswered(self) -> tuple[int, ...]:
        """Items taken and not answered."""
        return self._window.indices

    @property
    def longest_silence(self) -> float:
        """Seconds within which a server that works answers something."""
        return (self._options.timeout or _SERVER_SECONDS) + _SLACK_SECONDS

    def opening(self) -> list[reward.ScoreStreamRequest]:
        """What to send first on a new connection: the options, and all that is out."""
        self._answering = False
        first = reward.ScoreStreamRequest(options=self._score_options)
        return [first, *(item for item in self._window.items if not isinstance(item, t.Failed))]

    def take(self, pair: Pair) -> reward.ScoreStreamRequest | t.StreamedResult:
        """Numbers the next item. Gives what to send, or at once the result of one that cannot be sent.

        Raises:
            InvalidInput: It is no pair, so that neither it nor those that follow are what the caller means.
        """
        index, self._taken = self._taken, self._taken + 1
        prompt, completion = checks.pair(pair, f"pairs[{index}]", "(prompt, completion)")
        try:
            request = self._request(index, prompt, completion)
            checked_size(request, self._channel)
        except (InvalidInput, MessageTooLarge) as error:
            failed = t.Failed(t.ItemErrorCode.INVALID, f"the item cannot be sent: {error}", False, None)
            self._window.add(index, failed, 0)
            return index, failed
        self._window.add(index, request, request.ByteSize())
        return request

    def answered(self, response: reward.ScoreStreamResponse) -> t.StreamedResult:
        """The result that a reply holds.

        Raises:
            InternalError: No item waits for it.
        """
        self._patience.answered()
        self._answering = True
        if response.HasField("provenance"):
            self.provenance = convert.provenance(response.provenance)
            self._score_options.revision = self.provenance.revision
        return self.closed((response.id, convert.score_result(response.result)))

    def closed(self, result: t.StreamedResult) -> t.StreamedResult:
        """Notes that an item has its result.

        Raises:
            InternalError: It had one before, or does not exist.
        """
        if not self._window.answer(result[0]):
            message = f"{self.target} answered item {result[0]}, which does not wait for an answer"
            raise InternalError(grpc.StatusCode.INTERNAL, message, "", None)
        return result

    def broken(self, error: CallError, now: float) -> tuple[float, list[t.StreamedResult]]:
        """Seconds to wait before the next connection, and the items that are given up.

        Raises:
            CallError: Another connection would not help, or the patience is at its end.
        """
        delay = self._patience.delay(error, now)
        given_up = self._window.count_break() if self._answering else []
        message = f"the connection broke {_MAX_BREAKS} times while this item was out; the last time: {error}"
        return delay, [(index, t.Failed(t.ItemErrorCode.FAILED, message, True, None)) for index in given_up]

    def ended(self) -> CallError:
        """A server ended the stream although items are out."""
        message = f"{self.target} ended the stream before its time"
        return Unavailable(grpc.StatusCode.UNAVAILABLE, message, "", None)

    def silent(self) -> CallError:
        """A server says nothing."""
        message = f"no answer from {self.target} in {self.longest_silence:g} s, though {len(self._window)} items wait"
        return DeadlineExceeded(grpc.StatusCode.DEADLINE_EXCEEDED, message, "", None)

    def refused(self, error: grpc.RpcError) -> CallError:
        """How a connection ended, as gRPC raised it."""
        return call_error(error, self.target, SERVICE)

    def _request(self, index: int, prompt: t.ContentLike, completion: t.ContentLike) -> reward.ScoreStreamRequest:
        item = score_item(prompt, completion)
        timeout = None
        if self._options.timeout is not None:
            timeout = Duration()
            timeout.FromNanoseconds(round(self._options.timeout * 1e9))
        return reward.ScoreStreamRequest(item=reward.StreamItem(id=index, item=item, timeout=timeout))
