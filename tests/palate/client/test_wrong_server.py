"""Calling what is not there: the client says what was asked for, what is served instead, and what to look at."""

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from palate.client import AsyncPolicyClient, AsyncRewardClient, CallError, NotServed, PolicyClient, RewardClient
from tests.servers import start_server
from tests.tiny_models import make_tiny_policy, make_tiny_reward

REWARD, POLICY = "palate.v1.RewardService", "palate.v1.PolicyService"


@pytest.fixture(scope="module")
def reward(tmp_path_factory):
    folder = make_tiny_reward(tmp_path_factory.mktemp("reward") / "tiny", "encoder", 0)
    with start_server("services.reward", folder, "--engine", "fake") as running:
        yield running.target


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    folder = make_tiny_policy(tmp_path_factory.mktemp("policy"), seed=0)
    with start_server("services.policy", folder, "--engine", "fake") as running:
        yield running.target


@pytest.fixture(scope="module")
def empty():
    """A gRPC server that serves nothing and is not ours."""
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(0).wait()


def refusal_of(call):
    with pytest.raises(NotServed) as refusal:
        call()
    assert refusal.value.code is grpc.StatusCode.UNIMPLEMENTED
    assert isinstance(refusal.value, CallError)
    assert "check the address" in str(refusal.value)
    return str(refusal.value)


def test_a_reward_client_at_a_policy_service(policy):
    served = f"it serves {POLICY}"
    with RewardClient(policy) as client:
        for method, call in (
            ("Score", lambda: client.score(["p"], ["c"])),
            ("Compare", lambda: client.compare("p", "a", "b")),
            ("Rank", lambda: client.rank("p", ["a"])),
            ("GetModelInfo", client.model_info),
            ("ScoreStream", lambda: list(client.score_stream([("p", "c")]))),
        ):
            message = refusal_of(call)
            assert f"{policy}: this server does not serve {REWARD}/{method}; {served}" in message


def test_a_policy_client_at_a_reward_service(reward):
    with PolicyClient(reward) as client:
        for method, call in (
            ("Generate", lambda: list(client.generate(["p"]))),
            ("GetPolicyInfo", client.policy_info),
            ("AcquirePublisher", lambda: client.acquire_publisher("run", 1)),
        ):
            message = refusal_of(call)
            assert f"does not serve {POLICY}/{method}; it serves " in message
            assert f"{REWARD}: check the address" in message


def test_the_awaited_clients(reward, policy):
    async def score():
        async with AsyncRewardClient(policy) as client:
            await client.score(["p"], ["c"])

    async def stream():
        async with AsyncRewardClient(policy) as client:
            _ = [each async for each in client.score_stream([("p", "c")])]

    async def generate():
        async with AsyncPolicyClient(reward) as client:
            _ = [each async for each in client.generate(["p"])]

    for call in (score, stream, generate):
        assert "this server does not serve palate.v1." in refusal_of(lambda call=call: asyncio.run(call()))


def test_a_server_that_is_not_ours(empty):
    with RewardClient(empty) as client:
        for call in (client.model_info, lambda: list(client.score_stream([("p", "c")]))):
            message = refusal_of(call)
            assert f"{empty} does not serve {REWARD}, or not this call of it" in message
            assert "palate ping" in message


@pytest.mark.parametrize(
    "method", [f"/{REWARD}/Nothing", "/some.Other/Call", "/" + "x" * 5000, "/", "/grpc.health.v1.Health/No"]
)
def test_calls_that_no_version_has(reward, method):
    with grpc.insecure_channel(reward) as channel:
        for call in (
            lambda: channel.unary_unary(method)(b"", timeout=10),
            lambda: list(channel.stream_stream(method)(iter([b""]), timeout=10)),
        ):
            with pytest.raises(grpc.RpcError) as refusal:
                call()
            assert refusal.value.code() is grpc.StatusCode.UNIMPLEMENTED
            assert re.search(f"; it serves .*{REWARD}", refusal.value.details())
            assert len(refusal.value.details()) < 500
            assert dict(refusal.value.trailing_metadata())["palate-request-id"]
