"""Brings new weights to every replica of the policy service: stage everywhere, commit everywhere, or put all back."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

from torch import nn

from palate.client.errors import (
    CallError,
    DeadlineExceeded,
    Overloaded,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)
from palate.client.policy import PolicyClient
from palate.client.types import PolicyVersion, Publisher, TensorSpec, WeightsChunk
from palate.models.weights import describe_tensors, iter_chunks, untied_state_dict, weights_digest
from trainer.ppo.errors import POLICY_ACCESS, PublishFailed

_LOG = logging.getLogger(__name__)
_BACKOFF_SECONDS = 0.5
_PASSING = (Unavailable, Overloaded, DeadlineExceeded)
"""What may be over when the publication is tried again."""

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class Payload:
    """Weights, ready to be sent to any number of replicas."""

    version: PolicyVersion
    tensors: tuple[TensorSpec, ...]
    chunks: tuple[WeightsChunk, ...]


@dataclass(slots=True)
class _Replica:
    """A replica and the right to publish to it."""

    client: PolicyClient
    right: Publisher | None = None


def weights_payload(model: nn.Module, run_id: str, incarnation: int, step: int) -> Payload:
    """The weights of `model`, each tied tensor once, under a version that carries their digest."""
    state = untied_state_dict(model)
    entries = describe_tensors(state)
    tensors = tuple(TensorSpec(e.name, e.dtype, e.shape, e.size_bytes, e.sha256) for e in entries)
    chunks = tuple(WeightsChunk(c.tensor_index, c.offset_bytes, c.data) for c in iter_chunks(state, entries))
    return Payload(PolicyVersion(run_id, incarnation, step, weights_digest(entries)), tensors, chunks)


class WeightPublisher:
    """Publishes to all replicas, or to none.

    Args:
        clients: One for each replica, at its own address.
        run_id: Of this run.
        incarnation: How often the run has been started.
        attempts: How often a publication is tried while replicas are away or busy.
    """

    def __init__(self, clients: Sequence[PolicyClient], run_id: str, incarnation: int, attempts: int) -> None:
        self._replicas = [_Replica(client) for client in clients]
        self._run_id = run_id
        self._incarnation = incarnation
        self._attempts = attempts
        self._pool = ThreadPoolExecutor(len(clients), thread_name_prefix="publish")

    def publish(self, model: nn.Module, step: int) -> PolicyVersion:
        """Makes every replica serve `model`; returns the version they serve then.

        Raises:
            PublishFailed: Some replica does not take the weights; the others serve the former ones again.
        """
        payload = weights_payload(model, self._run_id, self._incarnation, step)
        for attempt in range(self._attempts):
            failures = self._publish_once(payload)
            if not failures:
                return payload.version
            if attempt + 1 == self._attempts or not all(isinstance(e, _PASSING) for e in failures.values()):
                break
            time.sleep(_BACKOFF_SECONDS * 2**attempt)
        told = "; ".join(f"{target}: {error}" for target, error in failures.items())
        raise PublishFailed(
            f"step {step} is not published: {told}. No replica serves it. {_remedy(failures.values())}, then --resume"
        ) from next(iter(failures.values()))

    def close(self) -> None:
        """Ends the workers; the clients stay open."""
        self._pool.shutdown(cancel_futures=True)

    def _publish_once(self, payload: Payload) -> dict[str, CallError]:
        """Target → why it failed; empty when every replica serves the payload."""
        staged, failures = self._everywhere(self._replicas, lambda replica: self._stage(replica, payload))
        if not failures:
            committed, failures = self._everywhere(
                self._replicas, lambda replica: self._commit(replica, staged[replica.client.target], payload.version)
            )
            if failures:
                self._revert([r for r in self._replicas if r.client.target in committed], payload.version)
        if failures:
            self._abort([r for r in self._replicas if r.client.target in staged], staged)
        return failures

    def _everywhere(
        self, replicas: Sequence[_Replica], job: Callable[[_Replica], ResultT]
    ) -> tuple[dict[str, ResultT], dict[str, CallError]]:
        """Runs `job` for all replicas at once; results and failures by target."""
        futures = {replica.client.target: self._pool.submit(job, replica) for replica in replicas}
        results: dict[str, ResultT] = {}
        failures: dict[str, CallError] = {}
        for target, future in futures.items():
            try:
                results[target] = future.result()
            except CallError as error:
                failures[target] = error
        return results, failures

    def _stage(self, replica: _Replica, payload: Payload) -> str:
        right = self._right(replica)
        staged = replica.client.stage_weights(right.fencing_token, payload.version, payload.tensors, payload.chunks)
        return staged.staging_id

    def _right(self, replica: _Replica) -> Publisher:
        """The right to publish; asked for once, and again only from a replica that has forgotten it by a restart.

        A replica that serves another run's weights has been taken over; its refusal is not to be argued with.
        """
        if replica.right is None or not replica.client.policy_info().policy_version.run_id:
            replica.right = replica.client.acquire_publisher(self._run_id, self._incarnation)
        return replica.right

    def _commit(self, replica: _Replica, staging_id: str, version: PolicyVersion) -> PolicyVersion:
        right = replica.right
        assert right is not None
        try:
            current, _ = replica.client.commit_weights(right.fencing_token, staging_id, expected_current=right.current)
        except _PASSING:
            # The answer is lost, not necessarily the commit.
            if replica.client.policy_info().policy_version != version:
                raise
            current = version
        replica.right = replace(right, current=current)
        return current

    def _revert(self, replicas: Sequence[_Replica], version: PolicyVersion) -> None:
        def revert(replica: _Replica) -> None:
            assert replica.right is not None
            current = replica.client.revert_weights(replica.right.fencing_token, version)
            replica.right = replace(replica.right, current=current)

        _, failures = self._everywhere(replicas, revert)
        for target, error in failures.items():
            # Rollouts name the version they want, so a replica that stays ahead is not sampled from.
            _LOG.error("%s still serves step %d: it could not be put back: %s", target, version.step, error)

    def _abort(self, replicas: Sequence[_Replica], staged: dict[str, str]) -> None:
        """Forgets what is staged; where that fails, a lease ends it or it was committed already."""

        def abort(replica: _Replica) -> None:
            assert replica.right is not None
            replica.client.abort_weights(replica.right.fencing_token, staged[replica.client.target])

        _, failures = self._everywhere(replicas, abort)
        for target, error in failures.items():
            _LOG.info("staged weights on %s are left to their lease: %s", target, error)


def _remedy(failures: Iterable[CallError]) -> str:
    if any(isinstance(error, (Unauthenticated, PermissionDenied)) for error in failures):
        return POLICY_ACCESS
    return "Mend or remove the replica (--services.policy)"
