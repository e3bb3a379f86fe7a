"""Bounds of a server, asked for through real sockets: sizes, streams, readers who do not read."""

import asyncio
import queue
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from benchmarks.ports import free_port
from palate.client import InvalidArgument, Overloaded, RewardClient, Scored
from palate.local_server import local_server
from palate.v1 import policy_service_pb2 as policy
from palate.v1 import reward_service_pb2 as reward
from services.runtime import reflection

SERVER = str(Path(__file__).with_name("example_server.py"))
SCORE = "/palate.v1.RewardService/Score"
GENERATE = "/palate.v1.PolicyService/Generate"
FLAGS = ("--slow-reader-seconds", "0.5", "--max-concurrent-calls", "2", "--max-streams-per-connection", "4")

GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0" + b"\0\0\0\4\1\0\0\0\0"
"""Of HTTP/2: the preface, settings, and that the other's are taken."""


@pytest.fixture(scope="module")
def server():
    with local_server([SERVER, *FLAGS]) as running:
        yield running


def peak_bytes(server):
    (line,) = [row for row in Path(f"/proc/{server.process.pid}/status").read_text().splitlines() if "VmHWM" in row]
    return int(line.split()[1]) * 1024


def request_of(bytes_of_text, prompt="hello"):
    item = {"prompt": {"text": prompt}, "completion": {"text": "a" * bytes_of_text}}
    return reward.ScoreRequest(items=[item]).SerializeToString()


@pytest.mark.parametrize(
    "compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip, grpc.Compression.Deflate]
)
def test_a_message_over_the_limit_is_refused_however_small_it_was_on_the_wire(server, compression):
    """A hundred megabytes of one letter are a hundred kilobytes compressed; the server never holds all of them."""
    before = peak_bytes(server)
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(server.target, options=options) as channel:
        call = channel.unary_unary(SCORE)
        assert call(request_of(3 << 20), timeout=30, compression=compression)
        with pytest.raises(grpc.RpcError) as caught:
            call(request_of(100 << 20), timeout=60, compression=compression)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert call(request_of(8), timeout=30)
    assert peak_bytes(server) - before < 32 << 20


def scored(client):
    try:
        return isinstance(client.score(["a"], ["b"]).results[0], Scored)
    except Overloaded:
        return False


def test_a_reader_who_does_not_read_is_cut_and_makes_room(server):
    """Two calls are all that the server takes at once, and one caller may have; after the cut there is room again."""
    request = policy.GenerateRequest(prompts=[{"prompt": {"text": "without end"}}]).SerializeToString()
    with grpc.insecure_channel(server.target) as channel, RewardClient(server.target, timeout=60) as client:
        calls = [channel.unary_stream(GENERATE)(request, timeout=120) for _ in range(2)]
        for call in calls:
            next(call)
        assert any(scored(client) for _ in range(60))  # each refused and tried again for half a second
        with pytest.raises(grpc.RpcError) as caught:
            for _ in calls[0]:
                pass
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "a reply was not read within 0.5 s; read replies as they come" in caught.value.details()
        calls[1].cancel()


def test_a_connection_whose_other_end_is_gone_is_closed():
    """A peer that shakes hands, and then neither asks nor answers a ping."""
    with local_server([SERVER, "--keepalive-seconds", "1"]) as running:
        host, port = running.target.split(":")
        with socket.create_connection((host, int(port)), timeout=60) as peer:
            peer.sendall(GREETING)
            received = b"".join(iter(lambda: peer.recv(4096), b""))
    assert b"ping_timeout" in received


def test_more_streams_than_a_connection_may_have_wait_in_the_client(server):
    """Ten calls over one connection that takes four at once, on a server that takes two: all are answered."""
    with RewardClient(server.target, timeout=60) as client, ThreadPoolExecutor(10) as pool:
        replies = list(pool.map(lambda number: client.score([str(number)], ["x"]), range(10)))
    assert all(isinstance(reply.results[0], Scored) for reply in replies)


def reflecting(channel):
    """An open stream of questions that has been answered once."""
    stub, questions = reflection_pb2_grpc.ServerReflectionStub(channel), queue.SimpleQueue()
    questions.put(reflection_pb2.ServerReflectionRequest(list_services=""))
    call = stub.ServerReflectionInfo(iter(questions.get, None), timeout=120)
    next(call)
    return questions, call


def test_streams_of_reflection_count_as_calls(server):
    """Two calls are all that the server takes at once, of whatever kind."""
    with grpc.insecure_channel(server.target) as channel:
        opened = [reflecting(channel) for _ in range(2)]
        with pytest.raises(grpc.RpcError) as refused:
            reflecting(channel)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        for questions, call in opened:
            questions.put(None)
            assert list(call) == []
        assert channel.unary_unary(SCORE)(request_of(8), timeout=30)


def test_a_stream_of_reflection_ends_when_nothing_more_is_asked(monkeypatch):
    monkeypatch.setattr(reflection, "_IDLE_SECONDS", 0.2)

    async def scenario():
        server = grpc.aio.server()
        reflection.add_reflection(server, [], [])
        target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        async with grpc.aio.insecure_channel(target) as channel:
            call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(timeout=60)
            await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
            assert len([reply async for reply in call]) == 1
            assert await call.code() is grpc.StatusCode.OK
        await server.stop(0)

    asyncio.run(scenario())


def test_the_port_of_the_health_has_bounds_too():
    """Sixteen calls a connection, which ends when it is too old; questions are short."""
    port = free_port()
    with local_server([SERVER, "--health-port", str(port), "--max-connection-age-seconds", "1"]):
        with socket.create_connection(("127.0.0.1", port), timeout=60) as peer:
            peer.sendall(GREETING)
            received = b"".join(iter(lambda: peer.recv(4096), b""))
        assert b"\0\3\0\0\0\x10" in received.partition(b"max_age")[0]  # SETTINGS_MAX_CONCURRENT_STREAMS
        assert b"max_age" in received
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            check = health_pb2_grpc.HealthStub(channel).Check
            assert check(health_pb2.HealthCheckRequest(), timeout=30).status == health_pb2.HealthCheckResponse.SERVING
            with pytest.raises(grpc.RpcError) as refused:
                check(health_pb2.HealthCheckRequest(service="x" * 5000), timeout=30)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_long_name_in_an_error_is_cut():
    """Errors travel in metadata, of which gRPC takes 8 KiB; a longer one would reach nobody."""
    with local_server([SERVER]) as running, RewardClient(running.target, timeout=30) as client:
        with pytest.raises(InvalidArgument) as caught:
            client.score(["quote"], ["\N{GRINNING FACE}" * 100_000])
        assert str(caught.value).count("\N{GRINNING FACE}") > 100
