"""The life of a server process, seen from outside through real sockets."""

import asyncio
import resource
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from palate.client import (
    AsyncRewardClient,
    ChannelOptions,
    InternalError,
    InvalidArgument,
    Overloaded,
    RewardClient,
    Scored,
    Unavailable,
)
from palate.local_server import ServerStartError, local_server

SERVER = str(Path(__file__).with_name("example_server.py"))


@pytest.fixture(scope="module")
def server():
    with local_server([SERVER]) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    with RewardClient(server.target, timeout=10) as made:
        yield made


def health(target, name):
    with grpc.insecure_channel(target) as channel:
        reply = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
    return health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)


def test_an_answer_comes_back(client):
    assert isinstance(client.score(["hello"], ["world"]).results[0], Scored)


def test_the_log_tells_the_configuration_where_a_start_succeeds(server, client):
    assert "max_concurrent_calls" in server.log.read_text()


def test_a_start_that_fails_tells_little_but_its_cause():
    command = [sys.executable, SERVER, "--host", "0.0.0.0", "--port", "0"]
    failed = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1].startswith("the server cannot start: ")
    assert "max_concurrent_calls" not in failed.stderr


def test_a_domain_error_becomes_its_status_with_its_reason(client):
    with pytest.raises(InvalidArgument, match="the item is wrong; mend it") as caught:
        client.score(["invalid"], ["x"])
    assert caught.value.request_id
    details = dict(caught.value.__cause__.trailing_metadata())["grpc-status-details-bin"]
    assert b"INVALID_REQUEST" in details


def test_a_bug_hides_its_message_and_names_the_request(client, server):
    with pytest.raises(InternalError) as caught:
        client.score(["bug"], ["x"])
    assert "secret" not in str(caught.value)
    log = server.log.read_text()
    assert caught.value.request_id in log
    assert "example_server.py" in log  # where it is, and not what it says: that may quote a user
    assert "RuntimeError" in log
    assert "secret" not in log.replace('raise RuntimeError("a secret that callers must not see")', "")


def test_an_overloaded_server_is_tried_again_after_the_time_it_said(client):
    assert client.score(["overloaded-once"], ["x"]).results[0].score == 0.0


def test_malformed_protobuf_is_the_callers_fault(server):
    with grpc.insecure_channel(server.target) as channel:
        call = channel.unary_unary("/palate.v1.RewardService/Score")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"\xff\xff\xff", timeout=5)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_method_that_does_not_exist_is_unimplemented(server):
    with grpc.insecure_channel(server.target) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/palate.v1.RewardService/Guess")(b"", timeout=5)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_calls_are_counted_under_the_names_dashboards_read(server, client):
    client.score(["counted"], ["x"])
    page = urllib.request.urlopen(f"http://{server.metrics_target}/metrics", timeout=5).read().decode()
    series = 'grpc_server_handled_total{grpc_code="OK",grpc_method="Score",grpc_service="palate.v1.RewardService"'
    assert series in page


def test_a_call_outlives_its_connections_age():
    """A connection that is too old takes no new calls; the one that runs on it is answered."""

    async def scenario(running):
        async with AsyncRewardClient(running.target, timeout=60) as client:
            call = asyncio.create_task(client.score(["wait"], ["x"]))
            peers = set()
            while len(peers) < 3:
                reply = await client.score(["slow"], ["x"])
                peers.add(reply.provenance.revision)
            assert not call.done()
            await client.score(["release"], ["x"])
            return await call

    with local_server([SERVER, "--max-connection-age-seconds", "0.3"]) as running:
        assert isinstance(asyncio.run(scenario(running)).results[0], Scored)


def test_what_was_accepted_is_answered_after_sigterm():
    async def scenario(running):
        async with AsyncRewardClient(running.target, timeout=20) as waiting:
            call = asyncio.create_task(waiting.score(["wait"], ["x"]))
            while (await waiting.score(["count"], ["x"])).results[0].score < 1:
                pass
            running.process.send_signal(signal.SIGTERM)
            while await asyncio.to_thread(health, running.target, "") == "SERVING":
                pass
            await waiting.score(["release"], ["x"])  # still within the drain delay
            return await call

    with local_server([SERVER, "--drain-delay-seconds", "5"]) as running:
        reply = asyncio.run(scenario(running))
        assert isinstance(reply.results[0], Scored)
        assert running.stop() == 0


def test_what_does_not_end_in_time_is_cut_and_the_exit_code_is_still_0():
    async def scenario(running):
        async with AsyncRewardClient(running.target, timeout=60, options=ChannelOptions(max_attempts=1)) as waiting:
            call = asyncio.create_task(waiting.score(["wait"], ["x"]))
            while (await waiting.score(["count"], ["x"])).results[0].score < 1:
                pass
            running.process.send_signal(signal.SIGTERM)
            with pytest.raises(Unavailable):
                await call

    with local_server([SERVER, "--drain-grace-seconds", "0.3"]) as running:
        asyncio.run(scenario(running))
        assert running.process.wait(20) == 0


def test_who_watches_the_health_does_not_hold_up_the_end():
    with (
        local_server([SERVER, "--drain-grace-seconds", "1000"]) as running,
        grpc.insecure_channel(running.target) as channel,
    ):
        watching = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=60)
        assert next(watching).status == health_pb2.HealthCheckResponse.SERVING
        running.process.send_signal(signal.SIGTERM)
        assert next(watching).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert running.process.wait(20) == 0


def test_more_calls_than_the_server_holds_are_refused():
    async def scenario(running):
        once = ChannelOptions(max_attempts=1)
        async with AsyncRewardClient(running.target, timeout=20, options=once) as client:
            begun = [asyncio.create_task(client.score(["wait"], ["x"])) for _ in range(3)]
            done, waiting = await asyncio.wait(begun, return_when=asyncio.FIRST_COMPLETED)
            with pytest.raises(Overloaded, match="2 calls are in flight"):
                await done.pop()
            for call in waiting:
                call.cancel()
            await asyncio.wait(waiting)
            while True:  # their places are free again
                try:
                    return await client.score(["hello"], ["x"])
                except Overloaded:
                    continue

    with local_server([SERVER, "--max-concurrent-calls", "2"]) as running:
        assert isinstance(asyncio.run(scenario(running)).results[0], Scored)


def test_a_port_in_use_is_said_so(server):
    port = server.target.rpartition(":")[2]
    done = subprocess.run(
        [sys.executable, SERVER, "--port", port, "--metrics-port", "0"], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_that_cannot_start_says_why():
    with (
        pytest.raises(ServerStartError, match="did you mean --drain-delay-seconds"),
        local_server([SERVER, "--drain-delay-second", "1"]),
    ):
        pass


def test_a_server_ends_with_the_process_that_started_it(tmp_path):
    """A parent that is killed cannot clean up; its servers notice."""
    pid_file = tmp_path / "pid"
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, SERVER, str(pid_file)], stdout=subprocess.PIPE, start_new_session=True
    )
    assert parent.stdout.readline() == b"ready\n"
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert _has_ended(int(pid_file.read_text()), within_seconds=20)


def _has_ended(pid: int, within_seconds: float) -> bool:
    deadline = time.monotonic() + within_seconds
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
    return False


PARENT = """
import sys
from palate.local_server import local_server
with local_server([sys.argv[1]]) as server:
    open(sys.argv[2], "w").write(str(server.process.pid))
    print("ready", flush=True)
    server.process.wait()
"""


@pytest.mark.parametrize(
    ("flags", "code", "told"),
    [
        (["--max-message-bytes", "99999999999"], 2, "less than or equal to 2147483647"),
        (["--max-streams-per-connection", "99999999999"], 2, "less than or equal to 2147483647"),
        (["--announce", "/nowhere/ports.json"], 1, "--announce /nowhere/ports.json cannot be written (No such file"),
        (["--otlp-endpoint", "nonsense"], 1, "--otlp-endpoint nonsense is no URL"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(flags, code, told):
    command = [sys.executable, SERVER, "--port", "0", "--metrics-port", "0", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == code
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_a_crash_would_leave_no_core_file():
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))  # what the server inherits
    try:
        with local_server([SERVER]) as running:
            assert resource.prlimit(running.process.pid, resource.RLIMIT_CORE) == (0, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))
