"""What our clients do about servers that are away, full, several, or killed; real servers, faults injected there."""

import asyncio
import signal
import urllib.request
from collections import Counter
from pathlib import Path

import grpc
import pytest

from palate.client import (
    AsyncPolicyClient,
    AsyncRewardClient,
    ChannelOptions,
    OverLimit,
    Overloaded,
    PolicyClient,
    RewardClient,
    Scored,
    Unavailable,
)
from palate.client.channel import open_channel
from palate.local_server import LocalServer, local_server
from palate.v1.common_pb2 import Content
from palate.v1.policy_service_pb2 import GeneratePrompt, GenerateRequest
from palate.v1.policy_service_pb2_grpc import PolicyServiceStub
from palate.v1.reward_service_pb2 import ScoreStreamRequest
from palate.v1.reward_service_pb2_grpc import RewardServiceStub
from tests.palate.client.failing_proxy import failing_proxy
from tests.palate.client.name_server import name_server

SERVER = str(Path(__file__).parents[2] / "services" / "runtime" / "example_server.py")
MEBIBYTE = "x" * 2**20


@pytest.fixture(scope="module")
def server():
    with local_server([SERVER]) as running:
        yield running


@pytest.fixture(scope="module")
def replicas():
    """Two servers with one port, on two addresses."""
    with local_server([SERVER]) as first, local_server([SERVER], host="127.0.0.2", port=port_of(first)) as second:
        yield first, second


def port_of(server: LocalServer) -> int:
    return int(server.target.rpartition(":")[2])


def started(server: LocalServer, method: str) -> float:
    page = urllib.request.urlopen(f"http://{server.metrics_target}/metrics", timeout=10).read().decode()
    lines = [line for line in page.splitlines() if line.startswith("grpc_server_started_total") and method in line]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def test_a_request_of_a_mebibyte_is_sent_again(server: LocalServer):
    with RewardClient(server.target) as client:
        assert client.score(["unavailable-twice"], [MEBIBYTE]).scores() == [3.0]


async def test_a_request_of_a_mebibyte_is_sent_again_by_the_awaited_client(server: LocalServer):
    async with AsyncRewardClient(server.target) as client:
        assert (await client.score(["unavailable-twice, awaited"], [MEBIBYTE])).scores() == [3.0]


@pytest.mark.parametrize("options", [ChannelOptions(retry_buffer_bytes=256 * 1024), ChannelOptions(max_attempts=1)])
def test_without_the_room_or_the_leave_it_is_not(server: LocalServer, options: ChannelOptions):
    with RewardClient(server.target, options=options) as client, pytest.raises(Unavailable, match="not yet"):
        client.score([f"unavailable-twice, {options.max_attempts} {options.retry_buffer_bytes}"], [MEBIBYTE])


def test_a_server_that_sheds_is_waited_for_as_long_as_it_said(server: LocalServer):
    with RewardClient(server.target) as client:
        assert 1.3 <= client.score(["shed for 1.3"], ["x"]).scores()[0] < 10.0
    with (
        RewardClient(server.target, options=ChannelOptions(max_attempts=1)) as client,
        pytest.raises(Overloaded) as caught,
    ):
        client.score(["shed for 1.4"], ["x"])
    assert caught.value.retry_after == 1.4


def test_streams_wait_as_long_as_the_server_said(server: LocalServer):
    with RewardClient(server.target, model="shed for 1.1") as client:
        ((_, result),) = client.score_stream([("a", "b")])
    assert 1.1 <= result.score < 10.0


async def test_awaited_streams_wait_as_long_as_the_server_said(server: LocalServer):
    """gRPC loses the refusal of one in four, on a busy machine of most, and how long to wait.

    Those are opened again as broken ones are.
    """

    async def waited(number: int) -> float:
        async with AsyncRewardClient(server.target, model=f"shed for 1.2{number}") as client:
            ((_, result),) = [each async for each in client.score_stream([("a", "b")])]
        return result.score

    found: list[float] = []
    while max(found, default=0.0) < 1.2 and len(found) < 1000:
        found += await asyncio.gather(*map(waited, range(len(found), len(found) + 10)))
    assert max(found) >= 1.2
    assert all(0.05 <= seconds < 10.0 for seconds in found)


def test_grpc_itself_does_not_repeat_streams(server: LocalServer):
    """It would send again what is answered already, and four times as often as our client means to."""
    options = ScoreStreamRequest(options={"model": "shed for 0.1"})
    with open_channel(server.target, ChannelOptions()) as channel, pytest.raises(grpc.RpcError) as caught:
        list(RewardServiceStub(channel).ScoreStream(iter([options]), timeout=30))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_what_changes_something_is_not_sent_twice(server: LocalServer):
    before = started(server, "AcquirePublisher")
    with PolicyClient(server.target) as client, pytest.raises(Unavailable):
        client.acquire_publisher("run", 1)
    assert started(server, "AcquirePublisher") - before == 1


def test_sampling_is_tried_again_while_nothing_of_it_has_come(server: LocalServer):
    with PolicyClient(server.target) as client:
        assert [completion.text for completion in client.generate(["unavailable-twice, sampled"])] == ["third"]
        broken = client.generate(["breaks after one"])
        assert next(broken).text == "first"
        with pytest.raises(Unavailable, match="broken"):
            next(broken)


async def test_the_awaited_client_does_so_too(server: LocalServer):
    async with AsyncPolicyClient(server.target) as client:
        found = [completion.text async for completion in client.generate(["unavailable-twice, sampled and awaited"])]
        assert found == ["third"]
        broken = client.generate(["breaks after one"])
        assert (await anext(broken)).text == "first"
        with pytest.raises(Unavailable, match="broken"):
            await anext(broken)


def test_sampling_is_given_up_without_leave_or_time(server: LocalServer):
    with (
        PolicyClient(server.target, options=ChannelOptions(max_attempts=1)) as client,
        pytest.raises(Unavailable, match="not yet"),
    ):
        list(client.generate(["unavailable-twice, once"]))
    with PolicyClient(server.target) as client, pytest.raises(Overloaded, match="full"):
        list(client.generate(["shed for 60"], timeout=30))


def test_sampling_whose_answer_is_too_large_is_not_asked_for_again(server: LocalServer):
    before = started(server, "Generate")
    options = ChannelOptions(max_message_bytes=50_000)
    with PolicyClient(server.target, options=options) as client, pytest.raises(OverLimit):
        list(client.generate(["without end"]))
    assert started(server, "Generate") - before == 1


def test_grpc_itself_does_not_repeat_sampling(server: LocalServer):
    """It can lose a stream that it may repeat when the server is killed, and its deadline with it."""
    request = GenerateRequest(prompts=[GeneratePrompt(prompt=Content(text="unavailable-twice, by grpc"))])
    with open_channel(server.target, ChannelOptions()) as channel, pytest.raises(grpc.RpcError) as caught:
        list(PolicyServiceStub(channel).Generate(request, timeout=30))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def shares(client: RewardClient, calls: int) -> list[float]:
    """Which part of the calls each replica answered, once the client knows them all."""
    while len({client.score(["hello"], ["x"]).provenance.model for _ in range(4)}) < 2:
        pass
    answered = Counter(client.score(["hello"], ["x"]).provenance.model for _ in range(calls))
    return [count / calls for count in answered.values()]


def test_two_replicas_behind_one_name_share_the_load(replicas: tuple[LocalServer, LocalServer]):
    first, second = replicas
    targets = [f"ipv4:{first.target},{second.target}"]
    with name_server("127.0.0.1", "127.0.0.2") as names:
        for target in [*targets, names.target(port_of(first))]:
            with RewardClient(target) as client:
                parts = shares(client, 200)
            assert len(parts) == 2
            assert max(parts) <= 0.6


async def work(client: AsyncRewardClient, calls: int, answered: list[str]) -> None:
    for _ in range(calls):
        reply = await client.score(["slow"], ["x"])
        assert isinstance(reply.results[0], Scored)
        answered.append(reply.provenance.model)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_replica_that_ends_under_load_loses_no_call(number: signal.Signals):
    with (
        local_server([SERVER]) as first,
        local_server([SERVER], host="127.0.0.2", port=port_of(first)) as second,
        name_server("127.0.0.1", "127.0.0.2") as names,
    ):
        answered: list[str] = []
        async with AsyncRewardClient(names.target(port_of(first))) as client:
            workers = [asyncio.create_task(work(client, 50, answered)) for _ in range(16)]
            while len(set(answered)) < 2 or len(answered) < 200:
                await asyncio.sleep(0)
            second.process.send_signal(number)
            await asyncio.gather(*workers)
        assert len(answered) == 16 * 50
        assert set(answered) == {str(first.process.pid), str(second.process.pid)}
        assert answered[-1] == str(first.process.pid)


def test_new_replicas_get_calls_and_old_connections_lose_none():
    """A connection that is old ends; the client asks the name again and finds who else is there."""
    flags = ["--max-connection-age-seconds", "0.5"]
    with (
        local_server([SERVER, *flags]) as first,
        name_server("127.0.0.1") as names,
        RewardClient(names.target(port_of(first))) as client,
    ):
        peers, served = set(), set()

        def call() -> None:
            reply = client.score(["slow"], ["x"])
            assert isinstance(reply.results[0], Scored)
            peers.add(reply.provenance.revision)
            served.add(reply.provenance.model)

        while len(peers) < 3:
            call()
        assert served == {str(first.process.pid)}
        with local_server([SERVER], host="127.0.0.2", port=port_of(first)) as second:
            names.addresses.append("127.0.0.2")
            while len(served) < 2:
                call()
            assert served == {str(first.process.pid), str(second.process.pid)}


def test_what_a_proxy_answers_for_its_server_is_tried_again():
    with failing_proxy() as (target, _), RewardClient(target) as client:
        assert [client.score(["a"], ["b"]).scores() for _ in range(30)] == [[1.0]] * 30


async def test_what_a_proxy_answers_for_its_server_is_tried_again_by_the_awaited_client():
    with failing_proxy() as (target, _):
        async with AsyncRewardClient(target) as client:
            assert [(await client.score(["a"], ["b"])).scores() for _ in range(30)] == [[1.0]] * 30


@pytest.mark.parametrize(("attempts", "tries"), [(1, 1), (4, 4)])
def test_a_proxy_that_never_reaches_its_server_is_given_up(attempts: int, tries: int):
    with failing_proxy(always=True) as (target, numbers):
        options = ChannelOptions(max_attempts=attempts)
        with RewardClient(target, options=options) as client, pytest.raises(Unavailable, match="502"):
            client.score(["a"], ["b"])
        assert next(numbers) == tries


def test_what_changes_something_is_not_sent_twice_through_a_proxy():
    with failing_proxy(always=True) as (target, numbers):
        with PolicyClient(target) as client, pytest.raises(Unavailable, match="502"):
            client.acquire_publisher("run", 1)
        assert next(numbers) == 1
