"""The life of published weights: announced, received, staged, committed, reverted. Pure logic; it never blocks."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Generic

from palate.client import PolicyVersion
from palate.models.adapters import AddedTo
from palate.models.assembly import DeltaOf, WeightsAssembler, WeightsLimits
from palate.models.weights import TensorEntry, WeightsError, weights_digest
from services.policy.adapters import AdapterBase
from services.policy.engine import WeightsT
from services.policy.upload import Changes, Upload
from services.policy.versions import Publishers, check_follows, check_pin, named
from services.runtime.errors import InvalidRequest, NotFound, WrongPin

if TYPE_CHECKING:
    from torch import Tensor

_SHOWN_NAMES = 5


@dataclass(frozen=True, slots=True)
class Served(Generic[WeightsT]):
    """Weights and what they are called."""

    version: PolicyVersion
    weights: WeightsT


@dataclass(frozen=True, slots=True)
class StagedWeights(Generic[WeightsT]):
    """Weights kept aside until `expires`, a reading of the clock."""

    staging_id: str
    served: Served[WeightsT]
    expires: float


@dataclass(frozen=True, slots=True)
class Committed:
    """What a commit did."""

    staging_id: str
    current: PolicyVersion
    previous: PolicyVersion


class Publication(Generic[WeightsT]):
    """What is served, what it can return to, and what is staged; at most one of each, and one upload.

    All methods run in one thread; `current` and `interruptions` (commits that running completions follow) are read
    from any.

    Args:
        initial: What is served at first.
        layout: The tensors of the model; every publication has exactly these.
        tensors: Gives the tensors of weights by name, for deltas.
        adapters: What adapters are added to; None = none are taken.
        frozen: Nothing may ever be published (a reference policy).
        lease_seconds: How long staged weights are kept without a commit.
        clock: Seconds that never run backwards.
        first_token: The first fencing token.
    """

    def __init__(
        self,
        initial: Served[WeightsT],
        layout: Sequence[TensorEntry],
        tensors: Callable[[WeightsT], Mapping[str, Tensor]],
        *,
        adapters: AdapterBase | None = None,
        frozen: bool = False,
        lease_seconds: float = 300.0,
        clock: Callable[[], float] = time.monotonic,
        first_token: int = 1,
    ) -> None:
        self.frozen = frozen
        self.lease_seconds = lease_seconds
        self.current = initial
        self.interruptions = 0
        self._previous: Served[WeightsT] | None = None
        self._staged: StagedWeights[WeightsT] | None = None
        self._upload: Upload | None = None
        self._committed: Committed | None = None
        self._layout = {entry.name: (entry.dtype, entry.shape) for entry in layout}
        self._limits = WeightsLimits(max_tensors=len(layout), max_bytes=sum(entry.size_bytes for entry in layout))
        self._publishers = Publishers(first_token)
        self._clock = clock
        self._tensors = tensors
        self._adapters = adapters

    @property
    def capabilities(self) -> tuple[str, ...]:
        """Names of the ways in which weights can be published here."""
        if self.frozen:
            return ()
        return "publishing", "delta", "interrupt", *(() if self._adapters is None else ("lora",))

    def acquire(self, run_id: str, incarnation: int) -> int:
        """Makes a run the only publisher; what another one was sending or had staged is forgotten."""
        self._check_thawed()
        token = self._publishers.acquire(run_id, incarnation)
        self._receive_instead(None)
        return token

    def open(
        self,
        token: int,
        version: PolicyVersion,
        entries: Sequence[TensorEntry],
        relation: Changes | AddedTo | None = None,
    ) -> Upload:
        """Begins an upload; one that was under way, and what was staged before, is forgotten.

        Args:
            token: The right to publish.
            version: What the weights are.
            entries: The tensors of the model, or with `AddedTo` the factors of adapters.
            relation: What they change or are added to; None = the model's tensors come whole.

        Raises:
            WrongPin: The token does not hold, the version may not follow what is served, that is not what a delta
                changes, or the server did not start with what adapters are added to.
            InvalidRequest: The tensors are not the model's, or do not have the announced digest.
        """
        self._check_publisher(token)
        self._publishers.check_identity(version)
        check_follows(version, self.current.version)
        try:
            if isinstance(relation, AddedTo):
                upload = self._upload_of_adapters(token, version, entries, relation)
            else:
                upload = self._upload_of_tensors(token, version, entries, relation)
        except WeightsError as error:
            raise InvalidRequest(str(error)) from error
        self._receive_instead(upload)
        return upload

    def check_open(self, upload: Upload) -> None:
        """Refuses an upload that another one or another publisher replaced.

        Raises:
            WrongPin: It was replaced.
        """
        if upload is not self._upload:
            raise WrongPin("another staging or another publisher replaced this one; its weights are forgotten")

    def close(self, upload: Upload) -> None:
        """Forgets an upload that failed; does nothing to one that was kept."""
        if upload is self._upload:
            self._upload = None

    def keep(self, upload: Upload, weights: WeightsT) -> StagedWeights[WeightsT]:
        """Stages the weights of a finished upload.

        Raises:
            WrongPin: It was replaced meanwhile.
        """
        self.check_open(upload)
        self._upload = None
        expires = self._clock() + self.lease_seconds
        self._staged = StagedWeights(uuid.uuid4().hex, Served(upload.version, weights), expires)
        return self._staged

    def commit(
        self, token: int, staging_id: str, expected: PolicyVersion | None, *, interrupt: bool = False
    ) -> Committed:
        """Serves staged weights. Repeating the last commit changes nothing and answers the same.

        Args:
            token: The right to publish.
            staging_id: Which weights.
            expected: What the publisher believes is served.
            interrupt: Running completions go on with these weights.

        Raises:
            WrongPin: The token does not hold, or something else is served than expected.
            NotFound: Nothing is staged under that name any more.
        """
        self._check_publisher(token)
        done = self._committed
        if done is not None and done.staging_id == staging_id and done.current == self.current.version:
            return done
        staged = self._find(staging_id)
        check_pin(expected, self.current.version)
        check_follows(staged.served.version, self.current.version)
        self._committed = Committed(staging_id, staged.served.version, self.current.version)
        self._previous, self.current, self._staged = self.current, staged.served, None
        self.interruptions += interrupt  # after `current`: whoever sees the count sees the weights
        return self._committed

    def revert(self, token: int, expected: PolicyVersion | None) -> PolicyVersion:
        """Serves what was served before the last commit; only once per commit.

        Raises:
            WrongPin: The token does not hold, something else is served than expected, or there is nothing before.
        """
        self._check_publisher(token)
        check_pin(expected, self.current.version)
        if self._previous is None:
            raise WrongPin("there is nothing to return to: no commit since the start or the last revert")
        self.current, self._previous, self._committed = self._previous, None, None
        return self.current.version

    def abort(self, token: int, staging_id: str) -> None:
        """Forgets staged weights.

        Raises:
            WrongPin: The token does not hold.
            NotFound: Nothing is staged under that name.
        """
        self._check_publisher(token)
        self._find(staging_id)
        self._staged = None

    def expire(self) -> bool:
        """Forgets staged weights whose lease is over; returns whether there were any."""
        if self._staged is None or self._clock() < self._staged.expires:
            return False
        self._staged = None
        return True

    def _receive_instead(self, upload: Upload | None) -> None:
        """Lets go of what was being received and of what is staged."""
        if self._upload is not None:
            self._upload.replace()
        self._upload, self._staged = upload, None

    def _upload_of_tensors(
        self, token: int, version: PolicyVersion, entries: Sequence[TensorEntry], changes: Changes | None
    ) -> Upload:
        self._check_layout(entries)
        if version.digest != (digest := weights_digest(entries)):
            raise InvalidRequest(
                f"the version's digest is {version.digest!r}; that of the announced tensors is {digest}"
            )
        assembler = WeightsAssembler(entries, self._limits, self._delta_of(changes))
        if self._adapters is not None:
            self._adapters.forget()
        return Upload(token, version, assembler)

    def _upload_of_adapters(
        self, token: int, version: PolicyVersion, factors: Sequence[TensorEntry], added: AddedTo
    ) -> Upload:
        if self._adapters is None:
            raise InvalidRequest("this server takes no adapters; send WEIGHTS_KIND_FULL")
        targets = self._adapters.check(factors, added)
        limits = WeightsLimits(2 * self._limits.max_tensors, self._limits.max_bytes)  # no larger than the model
        complete = partial(self._adapters.merged, targets=targets, scale=added.scale, digest=version.digest)
        return Upload(token, version, WeightsAssembler(factors, limits), complete)

    def _delta_of(self, changes: Changes | None) -> DeltaOf | None:
        if changes is None:
            return None
        check_pin(changes.base, self.current.version)
        return DeltaOf(self._tensors(self.current.weights), changes.changed)

    def _find(self, staging_id: str) -> StagedWeights[WeightsT]:
        self.expire()
        if self._staged is None or self._staged.staging_id != staging_id:
            raise NotFound(
                f"nothing is staged under that id; its lease of {self.lease_seconds:g} s is over, or it was replaced, "
                "aborted or committed: stage the weights again"
            )
        return self._staged

    def _check_thawed(self) -> None:
        if self.frozen:
            raise WrongPin(
                f"this policy is frozen: it serves {named(self.current.version)} for ever; publish to a server started "
                "without --frozen"
            )

    def _check_publisher(self, token: int) -> None:
        self._check_thawed()
        self._publishers.check(token)

    def _check_layout(self, entries: Sequence[TensorEntry]) -> None:
        announced = {entry.name: (entry.dtype, entry.shape) for entry in entries}
        if missing := sorted(self._layout.keys() - announced.keys()):
            raise InvalidRequest(f"{len(missing)} tensors of the model are not announced: {_some(missing)}")
        if unknown := sorted(announced.keys() - self._layout.keys()):
            raise InvalidRequest(f"{len(unknown)} announced tensors are not in the model: {_some(unknown)}")
        for name, described in announced.items():
            if described != self._layout[name]:
                raise InvalidRequest(
                    f"{name} is announced as {_shown(described)}; the model serves {_shown(self._layout[name])}"
                )


def _some(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > _SHOWN_NAMES else ""
    return ", ".join(name[:200] for name in names[:_SHOWN_NAMES]) + more


def _shown(described: tuple[str, tuple[int, ...]]) -> str:
    dtype, shape = described
    return f"{dtype[:16]} of shape {list(shape)}"
