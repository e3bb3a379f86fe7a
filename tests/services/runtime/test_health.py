"""What a server says of its health from its first moment to its last, and under which names."""

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from palate.client import ChannelOptions, RewardClient, Scored, Unavailable
from palate.local_server import local_server
from tests.servers import start_server
from tests.tiny_models import make_tiny_policy, make_tiny_reward

SERVER = str(Path(__file__).with_name("example_server.py"))
SERVICES = ("palate.v1.RewardService", "palate.v1.PolicyService")


def health(target, name):
    """The status of a service; None where the server does not know the name."""
    with grpc.insecure_channel(target) as channel:
        try:
            reply = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return None
            raise
    return health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)


def states(target):
    return {name: health(target, name) for name in ("live", *SERVICES, "")}


@contextmanager
def loading_server(folder, drain_delay):
    """A server whose model is there as soon as the file `loaded` is; yields its process and its address."""
    ports = ["--port", "0", "--metrics-port", "0", "--announce", str(folder / "ports.json")]
    command = [sys.executable, SERVER, *ports, "--drain-delay-seconds", str(drain_delay)]
    process = subprocess.Popen(command, env={**os.environ, "EXAMPLE_LOADS_WITH": str(folder / "loaded")})
    try:
        while not (folder / "ports.json").exists():
            assert process.poll() is None
        yield process, f"127.0.0.1:{json.loads((folder / 'ports.json').read_text())['port']}"
    finally:
        process.kill()
        process.wait()


def test_from_loading_to_draining(tmp_path):
    once = ChannelOptions(max_attempts=1)
    with loading_server(tmp_path, 5) as (process, target), RewardClient(target, timeout=10, options=once) as client:
        assert states(target) == {"live": "SERVING", **dict.fromkeys((*SERVICES, ""), "NOT_SERVING")}
        with pytest.raises(Unavailable, match=r"still loading \(waiting for model\)") as refused:
            client.score(["hello"], ["x"])
        assert refused.value.retry_after == 1.0

        (tmp_path / "loaded").touch()
        while health(target, "") != "SERVING":
            pass
        assert states(target) == dict.fromkeys(("live", *SERVICES, ""), "SERVING")
        assert isinstance(client.score(["hello"], ["x"]).results[0], Scored)

        process.send_signal(signal.SIGTERM)
        while health(target, "") == "SERVING":
            pass
        assert states(target) == {"live": "SERVING", **dict.fromkeys((*SERVICES, ""), "NOT_SERVING")}
        assert isinstance(client.score(["hello"], ["x"]).results[0], Scored)  # the drain delay is not over


def test_a_server_that_loads_can_be_told_to_stop(tmp_path):
    with loading_server(tmp_path, 0) as (process, _):
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


@pytest.mark.parametrize(
    ("module", "make", "service"),
    [
        ("services.reward", lambda folder: make_tiny_reward(folder, "encoder", 0), "palate.v1.RewardService"),
        ("services.policy", lambda folder: make_tiny_policy(folder, 0), "palate.v1.PolicyService"),
    ],
)
def test_each_service_answers_to_its_own_names(tmp_path, module, make, service):
    with start_server(module, make(tmp_path / "model"), "--engine", "fake") as server:
        known = {name: state for name, state in states(server.target).items() if state is not None}
    assert known == dict.fromkeys(("live", service, ""), "SERVING")


def test_unknown_names_are_not_found():
    with local_server([SERVER]) as server:
        assert health(server.target, "palate.v1.Nothing") is None
        assert health(server.target, "Live") is None
