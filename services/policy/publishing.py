"""The calls that change the weights, as gRPC serves them; what they mean stands in `staging`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration

from palate.client.convert import policy_version, policy_version_message
from palate.v1 import policy_service_pb2 as pb
from palate.v1.policy_service_pb2_grpc import PolicyServiceServicer
from services.policy.engine import Engine
from services.policy.metrics import PolicyMetrics
from services.policy.receiving import Receiving
from services.policy.requests import expected_version, manifest_entries, manifest_relation, weights_chunk
from services.policy.staging import Publication, StagedWeights
from services.policy.upload import Upload
from services.policy.versions import named
from services.runtime.deadlines import deadline_of
from services.runtime.errors import Expired, InvalidRequest, ServiceError

logger = logging.getLogger(__name__)


class PublishingServicer(PolicyServiceServicer):
    """AcquirePublisher, StageWeights, CommitWeights, RevertWeights, AbortWeights.

    Args:
        engine: Builds weights beside those that are served.
        publication: What is served and staged.
        metrics: What is counted.
        max_seconds: Longest a staging may take where the caller sets no deadline.
    """

    def __init__(
        self, engine: Engine[Any], publication: Publication[Any], metrics: PolicyMetrics, max_seconds: float
    ) -> None:
        self._engine = engine
        self._publication = publication
        self._metrics = metrics
        self._max_seconds = max_seconds

    async def AcquirePublisher(  # noqa: N802
        self, request: pb.AcquirePublisherRequest, context: grpc.aio.ServicerContext
    ) -> pb.AcquirePublisherResponse:
        """Makes a run the only publisher."""
        with self._counted("acquire"):
            token = self._publication.acquire(request.run_id, request.incarnation)
        logger.info("publisher %s/%d holds fencing token %d", request.run_id, request.incarnation, token)
        current = policy_version_message(self._publication.current.version)
        return pb.AcquirePublisherResponse(fencing_token=token, current=current)

    async def StageWeights(  # noqa: N802
        self, request: AsyncIterator[pb.StageWeightsRequest], context: grpc.aio.ServicerContext
    ) -> pb.StageWeightsResponse:
        """Receives weights and keeps them aside."""
        with self._counted("stage"):
            remaining = deadline_of(context, self._max_seconds) - time.monotonic()
            try:
                async with asyncio.timeout(remaining):
                    staged = await self._receive(request)
            except TimeoutError as error:
                raise Expired(f"the weights did not arrive within {remaining:.0f} s; nothing is staged") from error
        version = staged.served.version
        logger.info("staged %s", named(version))
        asyncio.get_running_loop().call_later(self._publication.lease_seconds, self._lapse)
        lease = Duration()
        lease.FromMilliseconds(round(self._publication.lease_seconds * 1000))
        return pb.StageWeightsResponse(staging_id=staged.staging_id, digest=version.digest, lease=lease)

    async def CommitWeights(  # noqa: N802
        self, request: pb.CommitWeightsRequest, context: grpc.aio.ServicerContext
    ) -> pb.CommitWeightsResponse:
        """Serves staged weights: for completions that begin then, or also for running ones from their next step on."""
        with self._counted("commit"):
            expected = expected_version(request)
            done = self._publication.commit(
                request.fencing_token, request.staging_id, expected, interrupt=request.interrupt
            )
        self._metrics.serving(done.current)
        logger.info("serving %s after %s", named(done.current), named(done.previous))
        return pb.CommitWeightsResponse(
            current=policy_version_message(done.current), previous=policy_version_message(done.previous)
        )

    async def RevertWeights(  # noqa: N802
        self, request: pb.RevertWeightsRequest, context: grpc.aio.ServicerContext
    ) -> pb.RevertWeightsResponse:
        """Serves the weights before the last commit again."""
        with self._counted("revert"):
            current = self._publication.revert(request.fencing_token, expected_version(request))
        self._metrics.serving(current)
        logger.info("serving %s again", named(current))
        return pb.RevertWeightsResponse(current=policy_version_message(current))

    async def AbortWeights(  # noqa: N802
        self, request: pb.AbortWeightsRequest, context: grpc.aio.ServicerContext
    ) -> pb.AbortWeightsResponse:
        """Forgets staged weights."""
        with self._counted("abort"):
            self._publication.abort(request.fencing_token, request.staging_id)
        return pb.AbortWeightsResponse()

    async def _receive(self, messages: AsyncIterator[pb.StageWeightsRequest]) -> StagedWeights[Any]:
        """Every message of a staging; whatever goes wrong, nothing of it stays."""
        first = await anext(messages, None)
        if first is None or first.WhichOneof("part") != "manifest":
            raise InvalidRequest("a staging begins with its manifest; send it before the chunks")
        manifest = first.manifest
        upload = self._publication.open(
            manifest.fencing_token,
            policy_version(manifest.version),
            manifest_entries(manifest),
            manifest_relation(manifest),
        )
        try:
            state = await self._unless_replaced(upload, messages)
            weights = await asyncio.to_thread(self._engine.build, state)
            return self._publication.keep(upload, weights)
        finally:
            self._publication.close(upload)

    async def _unless_replaced(
        self, upload: Upload, messages: AsyncIterator[pb.StageWeightsRequest]
    ) -> Mapping[str, Any]:
        """The tensors; a call that waits for more ends when another takes its place, so that only one holds memory."""
        try:
            async with asyncio.timeout(None) as limit:
                upload.when_replaced(lambda: limit.reschedule(0))
                state = await self._received(upload, messages)
                upload.when_replaced(lambda: None)
                return state
        except TimeoutError:
            self._publication.check_open(upload)
            raise

    async def _received(self, upload: Upload, messages: AsyncIterator[pb.StageWeightsRequest]) -> Mapping[str, Any]:
        receiving = Receiving(upload)
        async for message in messages:
            chunk = weights_chunk(message)
            self._publication.check_open(upload)
            await receiving.add(chunk)
            self._metrics.staged_bytes.inc(len(chunk.data))
        await receiving.end()
        return await asyncio.to_thread(upload.finish)  # adapters are merged there

    def _lapse(self) -> None:
        if self._publication.expire():
            self._metrics.publishing.labels("expire", "ok").inc()
            logger.warning("staged weights were not committed within their lease and are forgotten")

    @contextmanager
    def _counted(self, operation: str) -> Iterator[None]:
        outcome = "broken"
        try:
            yield
            outcome = "ok"
        except ServiceError as error:
            outcome = "refused"
            logger.info("%s refused: %s", operation, error)
            raise
        finally:
            self._metrics.publishing.labels(operation, outcome).inc()
