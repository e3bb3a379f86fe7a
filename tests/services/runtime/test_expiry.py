"""A token whose time comes while a stream is open: the clock is the test's own."""

import asyncio
import hashlib
from datetime import UTC, datetime, timedelta

import grpc
import pytest
import yaml
from prometheus_client import CollectorRegistry

from palate.v1.reward_service_pb2 import ScoreStreamRequest
from palate.v1.reward_service_pb2_grpc import RewardServiceStub, add_RewardServiceServicer_to_server
from services.runtime import identity, interceptors
from services.runtime.admission import Admission
from services.runtime.health import Health
from services.runtime.identity import Guard, Identities
from services.runtime.interceptors import CallInterceptor
from services.runtime.metrics import ServerMetrics
from tests.services.runtime.example_server import ExampleServicer

NAME = "palate.v1.RewardService"
END = datetime(2030, 1, 1, tzinfo=UTC)


class Clock(datetime):
    """Says what it is set to."""

    moment = END

    @classmethod
    def now(cls, tz=None):
        return cls.moment


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(identity, "datetime", Clock)
    monkeypatch.setattr(interceptors, "_TRUST_SECONDS", -1.0)  # every message is looked at
    monkeypatch.setattr(Clock, "moment", END - timedelta(seconds=1))
    return Clock


def identities_of(path):
    token = hashlib.sha256(b"a-token").hexdigest()
    path.write_text(yaml.safe_dump([{"name": "short", "roles": ["scorer"], "token_sha256": token, "expires": END}]))
    return Identities(path)


def test_a_token_that_expires_ends_a_stream_at_its_next_message(tmp_path, clock):
    async def scenario():
        health = Health([NAME], [])
        guard, metrics = Guard(identities_of(tmp_path / "who.yaml")), ServerMetrics(CollectorRegistry())
        server = grpc.aio.server(interceptors=[CallInterceptor([NAME], guard, Admission(health, 8), metrics, 60.0)])
        add_RewardServiceServicer_to_server(ExampleServicer(), server)
        target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        try:
            async with grpc.aio.insecure_channel(target) as channel:
                call = RewardServiceStub(channel).ScoreStream(
                    metadata=(("authorization", "Bearer a-token"),), timeout=60
                )
                await call.write(ScoreStreamRequest(options={}))
                for number in (1, 2):
                    await call.write(ScoreStreamRequest(item={"id": number, "item": {}}))
                    assert (await call.read()).id == number
                clock.moment = END
                await call.write(ScoreStreamRequest(item={"id": 3, "item": {}}))
                assert await call.code() is grpc.StatusCode.UNAUTHENTICATED
                assert "the credentials of short have expired" in await call.details()
        finally:
            await server.stop(0)

    asyncio.run(scenario())
