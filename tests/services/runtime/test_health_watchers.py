"""Who watches the health: everyone is told, and there are no more of them than the server bears."""

import asyncio
from contextlib import asynccontextmanager

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.runtime.health import Health

SERVING, NOT_SERVING, UNKNOWN = (
    health_pb2.HealthCheckResponse.SERVING,
    health_pb2.HealthCheckResponse.NOT_SERVING,
    health_pb2.HealthCheckResponse.SERVICE_UNKNOWN,
)


@asynccontextmanager
async def served(health):
    """A stub of a server that has this health and nothing else."""
    server = grpc.aio.server()
    health.add_to(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield health_pb2_grpc.HealthStub(channel)
    finally:
        await server.stop(0)


def watch(stub, name=""):
    return stub.Watch(health_pb2.HealthCheckRequest(service=name), timeout=60)


async def told(call):
    return (await call.read()).status


async def status_of(call):
    """What became of a watch that ends."""
    return await call.code()


async def open_watches(stub, number):
    """As many that have been told once."""
    calls = [watch(stub) for _ in range(number)]
    assert [await told(call) for call in calls] == [NOT_SERVING] * number
    return calls


@pytest.mark.parametrize("name", ["", "a.Service"])
def test_one_that_leaves_does_not_silence_the_others(name):
    async def scenario():
        health = Health(["a.Service"], ["model"])
        async with served(health) as stub:
            stays, leaves, live = watch(stub, name), watch(stub, name), watch(stub, "live")
            assert [await told(call) for call in (stays, leaves, live)] == [NOT_SERVING, NOT_SERVING, SERVING]
            leaves.cancel()
            assert await status_of(leaves) is grpc.StatusCode.CANCELLED
            while health._servicer._watchers.total > 2:  # the server has noticed
                await asyncio.sleep(0)
            health.set("model", True)
            assert await told(stays) == SERVING
            health.drain()
            assert await told(stays) == NOT_SERVING
            assert await told(watch(stub, "live")) == SERVING

    asyncio.run(scenario())


def test_there_are_no_more_than_it_bears_and_asking_once_is_always_answered():
    async def scenario():
        health = Health([], ["model"], max_watchers=8)
        async with served(health) as stub:
            calls = await open_watches(stub, 7)  # of eight places one is kept for somebody else
            more = watch(stub)
            assert await status_of(more) is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "ask with Check" in await more.details()
            assert (await stub.Check(health_pb2.HealthCheckRequest(), timeout=60)).status == NOT_SERVING
            calls[0].cancel()
            while health._servicer._watchers.total > 6:
                await asyncio.sleep(0)
            await open_watches(stub, 1)

    asyncio.run(scenario())


def test_a_name_that_is_unknown_is_answered_once_and_takes_no_place():
    async def scenario():
        async with served(Health([], ["model"], max_watchers=8)) as stub:
            for number in range(9):
                call = watch(stub, f"{number}" * 1000)
                assert [each.status async for each in call] == [UNKNOWN]
                assert await status_of(call) is grpc.StatusCode.OK
            with pytest.raises(grpc.aio.AioRpcError, match="this server's health has '', 'live'") as refused:
                await stub.Check(health_pb2.HealthCheckRequest(service="x"), timeout=60)
            assert refused.value.code() is grpc.StatusCode.NOT_FOUND

    asyncio.run(scenario())
