"""A closed client says so, whatever it is asked for, and whatever is out when it is closed."""

import asyncio
import itertools
from pathlib import Path

import pytest

from palate.client import (
    AsyncPolicyClient,
    AsyncRewardClient,
    ClientClosed,
    PolicyClient,
    PolicyVersion,
    RewardClient,
)
from palate.local_server import local_server

SERVER = str(Path(__file__).parents[2] / "services" / "runtime" / "example_server.py")


@pytest.fixture(scope="module")
def server():
    with local_server([SERVER]) as running:
        yield running


def test_a_closed_client(server):
    reward, policy = RewardClient(server.target), PolicyClient(server.target)
    assert reward.score(["p"], ["c"]).scores()
    reward.close()
    reward.close()
    policy.close()
    for call in (
        lambda: reward.score(["p"], ["c"]),
        lambda: list(reward.score_stream([("p", "c")])),
        reward.model_info,
        reward.__enter__,
        lambda: list(policy.generate(["p"])),
        lambda: list(policy.generate_tokens(["p"])),
        policy.policy_info,
        lambda: policy.stage_weights(1, PolicyVersion(), [], []),
    ):
        with pytest.raises(ClientClosed, match=rf"the client of {server.target} is closed; make another one"):
            call()


async def test_a_closed_awaited_client(server):
    reward, policy = AsyncRewardClient(server.target), AsyncPolicyClient(server.target)
    assert (await reward.score(["p"], ["c"])).scores()
    await reward.close()
    await policy.close()
    for call in (
        reward.score(["p"], ["c"]),
        anext(reward.score_stream([("p", "c")])),
        reward.model_info(),
        reward.__aenter__(),
        anext(policy.generate(["p"])),
        anext(policy.generate_tokens(["p"])),
        policy.policy_info(),
    ):
        with pytest.raises(ClientClosed, match="is closed; make another one"):
            await call


def test_closed_while_a_stream_runs(server):
    client = RewardClient(server.target, model="shed for 0.0")
    with client.score_stream(itertools.repeat(("p", "c"))) as stream:
        next(stream)
        client.close()
        with pytest.raises(ClientClosed):
            list(stream)


async def test_closed_while_an_awaited_stream_runs(server):
    client = AsyncRewardClient(server.target, model="shed for 0.01")
    async with client.score_stream(itertools.repeat(("p", "c"))) as stream:
        await anext(stream)
        await client.close()
        with pytest.raises(ClientClosed):
            async with asyncio.timeout(20):
                _ = [each async for each in stream]


async def test_closed_while_a_call_is_out(server):
    """gRPC cancels what is out; whoever waits for it was not cancelled, and is told."""
    client = AsyncRewardClient(server.target)
    before = (await client.score(["count"], ["c"])).scores()[0]
    call = asyncio.create_task(client.score(["wait"], ["c"]))
    while (await client.score(["count"], ["c"])).scores()[0] == before:
        pass
    await client.close()
    with pytest.raises(ClientClosed):
        await call


async def test_a_cancelled_task_stays_cancelled(server):
    async with AsyncRewardClient(server.target) as client:
        before = (await client.score(["count"], ["c"])).scores()[0]
        call = asyncio.create_task(client.score(["wait"], ["c"]))
        while (await client.score(["count"], ["c"])).scores()[0] == before:
            pass
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
