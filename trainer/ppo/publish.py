"""Brings new weights to every replica of the policy service: stage everywhere, commit everywhere, or put all back."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from torch import nn

from palate.client.errors import CallError, FailedPrecondition, PermissionDenied, Unauthenticated
from palate.client.policy import PolicyClient
from palate.client.types import PolicyInfo, PolicyVersion
from trainer.exposure import Vitals
from trainer.ppo import points
from trainer.ppo.errors import POLICY_ACCESS, PublishFailed
from trainer.ppo.fleet import Fleet
from trainer.ppo.idle import BusyMeter
from trainer.ppo.patience import Patience
from trainer.ppo.payload import DeltaEncoder, Payload, PayloadMaker, weights_payload
from trainer.ppo.replica import Deadlines, Replica

_LOG = logging.getLogger(__name__)
_BACKOFF_SECONDS = 0.5

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class PublishSettings:
    """How weights are published.

    Attributes:
        patience: How long a publication is tried while replicas are away or busy.
        deadlines: Of each phase.
        full_every: Every how many publications the weights go whole, and what has changed between; 1 = always whole.
        payload: What is sent of a model.
        check: Raises where a replica (address, what it has loaded) does not fit the run; asked before each staging.
        interrupt: Completions that are being drawn go on under the new weights; else they end on theirs.
        copy: Keep a copy of what is published, so that the model may change while replicas still catch up.
    """

    patience: Patience
    deadlines: Deadlines
    full_every: int = 1
    payload: PayloadMaker = weights_payload
    check: Callable[[str, PolicyInfo], None] = lambda target, info: None
    copy: bool = False
    interrupt: bool = False


class WeightPublisher:
    """Publishes to all replicas, or to none.

    Args:
        fleet: The replicas that there are.
        run_id: Of this run.
        incarnation: How often the run has been started.
        settings: How weights are published.
        meter: Of the policy service.
        vitals: Told of every try.

    Attributes:
        sent_bytes: Of the last publication, to a replica that had the one before.
    """

    def __init__(
        self,
        fleet: Fleet,
        run_id: str,
        incarnation: int,
        settings: PublishSettings,
        meter: BusyMeter | None = None,
        vitals: Vitals | None = None,
    ) -> None:
        self._fleet = fleet
        self._meter = meter or BusyMeter()
        self._vitals = vitals or Vitals()
        self._known: dict[PolicyClient, Replica] = {}
        self._lock = threading.Lock()
        self._publishing = threading.Lock()
        self._run_id = run_id
        self._incarnation = incarnation
        self._settings = settings
        self._last: Payload | None = None
        self.sent_bytes = 0
        self._encoder = DeltaEncoder(settings.full_every)

    def replicas(self) -> Sequence[Replica]:
        """Every replica that there is now."""
        clients = self._fleet.clients()
        with self._lock:
            self._known = {client: self._known.get(client) or self._new(client) for client in clients}
            return tuple(self._known.values())

    def publish(self, model: nn.Module, step: int) -> PolicyVersion:
        """Makes every replica serve `model`.

        Unless a copy is kept, it must not change before `catch_up` was asked for the last time.

        Returns:
            The version that they serve then.

        Raises:
            PublishFailed: Some replica does not take the weights; the others serve the former ones again.
        """
        points.reach("publish")
        self._fleet.forget_gone()
        plain = self._settings.payload(model, self._run_id, self._incarnation, step)
        if self._settings.copy:
            plain = plain.copied()
        with self._publishing:
            version = self._publish(self._encoder.encoded(plain))
        points.reach("published")
        return version

    def _publish(self, payload: Payload) -> PolicyVersion:
        self._last, self.sent_bytes, step = payload, payload.size_bytes, payload.version.step
        pauses = self._settings.patience.pauses(_BACKOFF_SECONDS)
        while failures := self._publish_once(payload):
            self._vitals.publication(ok=False)
            pause = next(pauses, None) if all(r.may_pass(error) for r, error in failures.items()) else None
            if pause is None:
                raise _failed(step, failures)
            _LOG.warning("step %d is not published yet, trying again: %s", step, _told(failures))
            time.sleep(pause)
        self._vitals.publication(ok=True)
        self._encoder.published(payload)
        return payload.version

    def catch_up(self, replica: Replica) -> None:
        """Makes one replica serve what was published last: it has restarted, or came late.

        Raises:
            CallError: It does not take the weights.
        """
        _LOG.warning("%s serves other weights than were published: bringing it up to date", replica.target)
        with self._publishing:  # a publication that goes on meanwhile reaches it too
            assert self._last is not None, "nothing was published yet"
            with self._meter.busy():
                replica.catch_up(self._last)

    def _new(self, client: PolicyClient) -> Replica:
        told = self._settings
        return Replica(client, self._run_id, self._incarnation, told.deadlines, told.check, interrupt=told.interrupt)

    def _publish_once(self, payload: Payload) -> dict[Replica, CallError]:
        """Replica → why it failed; empty when every replica serves the payload."""
        with self._meter.busy():
            return self._stage_and_commit(payload)

    def _stage_and_commit(self, payload: Payload) -> dict[Replica, CallError]:
        staged, failures = _everywhere(self.replicas(), lambda replica: replica.stage(payload))
        if not failures:
            points.reach("staged")
            committed, failures = self._commit(staged, payload.version)
            if failures:
                _revert(committed, payload.version)
        if failures:
            _abort(staged)
        return failures

    def _commit(
        self, staged: dict[Replica, str], version: PolicyVersion
    ) -> tuple[Sequence[Replica], dict[Replica, CallError]]:
        """Commits on one replica, then on all others at once: what the first refuses, nobody has to take back.

        Returns:
            The replicas that committed, and why others did not.
        """
        first, *others = staged
        points.reach("commit")
        done, failures = _everywhere([first], lambda replica: replica.commit(staged[replica], version))
        if not failures and others:
            points.reach("commit-others")
            more, failures = _everywhere(others, lambda replica: replica.commit(staged[replica], version))
            done |= more
        return list(done), failures


def _everywhere(
    replicas: Sequence[Replica], job: Callable[[Replica], ResultT]
) -> tuple[dict[Replica, ResultT], dict[Replica, CallError]]:
    """Runs `job` for all replicas at once; results and failures by replica."""
    results: dict[Replica, ResultT] = {}
    failures: dict[Replica, CallError] = {}
    with ThreadPoolExecutor(max(1, len(replicas)), thread_name_prefix="publish") as pool:
        futures = {replica: pool.submit(job, replica) for replica in replicas}
    for replica, future in futures.items():
        try:
            results[replica] = future.result()
        except CallError as error:
            failures[replica] = error
    return results, failures


def _revert(replicas: Sequence[Replica], version: PolicyVersion) -> None:
    _, failures = _everywhere(replicas, lambda replica: replica.revert(version))
    for replica, error in failures.items():
        # Rollouts name the version they want, so a replica that stays ahead is not sampled from.
        _LOG.error("%s may still serve step %d: it could not be put back: %s", replica.target, version.step, error)


def _abort(staged: dict[Replica, str]) -> None:
    """Forgets what is staged; where that fails, a lease ends it or it was committed already."""
    _, failures = _everywhere(list(staged), lambda replica: replica.abort(staged[replica]))
    for replica, error in failures.items():
        _LOG.info("staged weights on %s are left to their lease: %s", replica.target, error)


def _failed(step: int, failures: dict[Replica, CallError]) -> PublishFailed:
    failed = PublishFailed(
        f"step {step} is not published: {_told(failures)}. The replicas serve what they served before, or are kept "
        f"out. {_remedy(failures.values())}, then --resume"
    )
    failed.__cause__ = next(iter(failures.values()))
    return failed


def _told(failures: dict[Replica, CallError]) -> str:
    return "; ".join(f"{replica.target}: {error}" for replica, error in failures.items())


def _remedy(failures: Iterable[CallError]) -> str:
    if any(isinstance(error, (Unauthenticated, PermissionDenied)) for error in failures):
        return POLICY_ACCESS
    if any(isinstance(error, FailedPrecondition) for error in failures):
        return "Where another run publishes to the replica, end that one or name another replica (--services.policy)"
    return "Mend or remove the replica (--services.policy)"
