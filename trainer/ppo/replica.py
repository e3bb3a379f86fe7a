"""One replica of the policy service as a publisher sees it: the right to publish, and each phase with its deadline."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from palate.client.errors import (
    CallError,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    MessageTooLarge,
    NotFound,
    OverLimit,
    Overloaded,
    Unavailable,
)
from palate.client.policy import PolicyClient
from palate.client.types import PolicyInfo, PolicyVersion, Publisher, WeightsChunk
from trainer.ppo import points
from trainer.ppo.payload import Delta, Payload

_LOG = logging.getLogger(__name__)

AWAY = (Unavailable, Overloaded, DeadlineExceeded)
"""What may be over when the call is tried again."""

TOO_LARGE = (MessageTooLarge, OverLimit)
"""What asking for less at once mends: a message is over a limit of the client, or of the server."""


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds for each phase of a publication, on each replica.

    Attributes:
        stage: To receive and check all weights.
        commit: To serve what is staged; also to revert, and for the small calls around them.
    """

    stage: float
    commit: float


class Replica:
    """A replica and the right to publish to it.

    Args:
        client: At its own address.
        run_id: Of the run that publishes.
        incarnation: How often the run has been started.
        deadlines: Of each phase.
        check: Raises where what it has loaded does not fit the run.
        interrupt: What it is drawing goes on under the weights that are committed.
    """

    def __init__(
        self,
        client: PolicyClient,
        run_id: str,
        incarnation: int,
        deadlines: Deadlines,
        check: Callable[[str, PolicyInfo], None],
        *,
        interrupt: bool = False,
    ) -> None:
        self.client = client
        self._interrupt = interrupt
        self._check = check
        self._run_id = run_id
        self._incarnation = incarnation
        self._deadlines = deadlines
        self._right: Publisher | None = None
        self._instance_id = ""
        self._catching_up = threading.Lock()

    @property
    def target(self) -> str:
        """Its address."""
        return self.client.target

    def info(self) -> PolicyInfo:
        """What it has loaded and serves."""
        return self.client.policy_info(timeout=self._deadlines.commit)

    def may_pass(self, error: CallError) -> bool:
        """Whether another try may help: it is away or busy, or a restart made it forget what it was told."""
        return isinstance(error, AWAY) or (isinstance(error, (FailedPrecondition, NotFound)) and self.forgot())

    def forgot(self) -> bool:
        """Whether it has restarted since it gave the right to publish; one that does not answer may have."""
        try:
            return self.info().instance_id != self._instance_id
        except AWAY:
            return True

    def stage(self, payload: Payload) -> str:
        """Sends weights; returns under which id they are staged."""
        info = self.info()
        self._check(self.target, info)
        right = self._acquired(info)
        if (delta := payload.delta) is not None and info.policy_version == delta.base and "delta" in info.capabilities:
            try:
                return self._send(right, payload, delta)
            except (FailedPrecondition, InvalidArgument) as error:
                _LOG.warning("%s does not take what has changed, sending everything: %s", self.target, error)
        return self._send(right, payload, None)

    def _send(self, right: Publisher, payload: Payload, delta: Delta | None) -> str:
        relative = delta or payload.added
        staged = self.client.stage_weights(
            right.fencing_token,
            payload.version,
            payload.tensors(delta),
            _watched(payload.chunks(delta)),
            base=None if relative is None else relative.base,
            lora_scale=None if payload.added is None else payload.added.scale,
            timeout=self._deadlines.stage,
        )
        return staged.staging_id

    def commit(self, staging_id: str, version: PolicyVersion) -> None:
        """Makes it serve what is staged."""
        right = self._held()
        try:
            self.client.commit_weights(
                right.fencing_token,
                staging_id,
                expected_current=right.current,
                interrupt=self._interrupt,
                timeout=self._deadlines.commit,
            )
        except AWAY:
            # The answer is lost, not necessarily the commit.
            if self.info().policy_version != version:
                raise
        self._right = replace(right, current=version)

    def revert(self, version: PolicyVersion) -> None:
        """Makes it serve what it served before it committed `version`."""
        right = self._held()
        current = self.client.revert_weights(right.fencing_token, version, timeout=self._deadlines.commit)
        self._right = replace(right, current=current)

    def abort(self, staging_id: str) -> None:
        """Makes it forget what is staged."""
        self.client.abort_weights(self._held().fencing_token, staging_id, timeout=self._deadlines.commit)

    def catch_up(self, payload: Payload) -> None:
        """Makes it serve `payload`, whatever it has missed; does nothing where it does already."""
        with self._catching_up:
            if self.info().policy_version != payload.version:
                self.commit(self.stage(payload), payload.version)

    def _held(self) -> Publisher:
        assert self._right is not None, "staging comes first"
        return self._right

    def _acquired(self, info: PolicyInfo) -> Publisher:
        """The right to publish; asked for once, and again only from a replica that has forgotten it by a restart.

        One that was taken over by another run has not: its refusal is not to be argued with.
        """
        if self._right is None or info.instance_id != self._instance_id:
            self._right = self.client.acquire_publisher(self._run_id, self._incarnation, timeout=self._deadlines.commit)
            self._instance_id = info.instance_id
        return self._right


def _watched(chunks: Iterator[WeightsChunk]) -> Iterator[WeightsChunk]:
    for number, chunk in enumerate(chunks):
        if number == 1:
            points.reach("stage")
        yield chunk
