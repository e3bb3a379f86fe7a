"""No answer: what the client says to look at is what is the matter; real sockets, and the words of other gRPCs."""

import os
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest

from benchmarks.protected import make_protection
from palate.client import ChannelOptions, DeadlineExceeded, RewardClient, Tls, Unavailable
from palate.client.errors import call_error
from palate.local_server import local_server
from tests.palate.client.test_errors import Refusal

SERVER = str(Path(__file__).parents[2] / "services" / "runtime" / "example_server.py")

NO_LISTENER = "Nothing listens there: is the server running, and are host and port right?"
NO_NAME = "That name is not known here: check its spelling"
NO_MACHINE = "That machine does not answer: check the address, the network and firewalls"
NO_GRPC = "does not speak gRPC; is it another port of the server, e.g. that of the metrics?"
NO_TLS = "The server does not use TLS at this port"
HUNG_UP = "What listens there hung up: it may want TLS (tls, --ca), or a certificate of yours"
BROKEN = "The connection broke during the call; has the server ended?"


def told(target: str, tls: Tls | None = None, attempts: int = 1) -> str:
    options = ChannelOptions(tls=tls, max_attempts=attempts)
    with RewardClient(target, timeout=10, options=options) as client, pytest.raises(Unavailable) as refusal:
        client.model_info()
    assert f"no answer from {target}: " in str(refusal.value)
    return str(refusal.value)


@contextmanager
def listener(answer):
    """A port at which every connection is answered by `answer`."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                answer(connection)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return make_protection(tmp_path_factory.mktemp("protection"))


@pytest.fixture(scope="module")
def plain():
    with local_server([SERVER]) as running:
        yield running


@pytest.fixture(scope="module")
def encrypted(files):
    with local_server([SERVER, *files.tls_flags], probe_tls=files.tls) as running:
        yield running


@pytest.mark.parametrize("attempts", [1, 4])
def test_nothing_listens(attempts):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert NO_LISTENER in told(f"127.0.0.1:{port}", attempts=attempts)


def test_no_such_socket(tmp_path):
    assert "There is no such socket" in told(f"unix:{tmp_path}/none")


@pytest.mark.parametrize("target", ["nowhere.invalid:50051", "dns:///nowhere.invalid:50051"])
def test_a_name_that_does_not_resolve(target):
    assert NO_NAME in told(target)


def test_a_machine_that_does_not_answer():
    """Connections are taken and nothing is said: as far as the deadline goes, the same as no machine at all."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"127.0.0.1:{silent.getsockname()[1]}"
        with RewardClient(target, timeout=0.5) as client, pytest.raises(DeadlineExceeded) as late:
            client.model_info()
    assert f"no answer from {target} in time" in str(late.value)
    assert "a longer timeout, or fewer items" in str(late.value)
    assert "it cannot be reached (check the address" in str(late.value)


def test_another_port_of_the_server(plain):
    assert NO_GRPC in told(plain.metrics_target)


def test_a_server_that_hangs_up():
    def hang_up(connection: socket.socket) -> None:
        connection.recv(1)
        connection.close()

    with listener(hang_up) as target:
        assert HUNG_UP in told(target)


def test_tls_on_one_side(plain, encrypted, files):
    assert NO_TLS in told(plain.target, files.tls)
    assert HUNG_UP in told(encrypted.target)


def test_no_certificate_where_one_is_wanted(files):
    command = [SERVER, *files.token_flags, *files.mtls_flags]
    with local_server(command, probe_tls=files.mutual_tls("scorer")) as server:
        assert HUNG_UP in told(server.target, files.tls)
        assert HUNG_UP in told(server.target)


def test_another_authority(encrypted, tmp_path):
    assert "not of the authority that you trust" in told(encrypted.target, make_protection(tmp_path).tls)


def test_a_certificate_for_another_name(tmp_path):
    files = make_protection(tmp_path, "reward.example")
    named = replace(files.tls, server_name="reward.example")
    with local_server([SERVER, *files.tls_flags], probe_tls=named) as server:
        assert "for another name than the address; give that name as server_name" in told(server.target, files.tls)


def test_a_certificate_that_has_expired(files):
    past = datetime.now(UTC) - timedelta(days=2)
    issued = files.authority.issue_cert("127.0.0.1", not_before=past - timedelta(days=9), not_after=past)
    pair = (issued.private_key_pem.bytes(), b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    server.start()
    assert "certificate is not valid today; whoever runs it must renew it" in told(f"127.0.0.1:{port}", files.tls)
    server.stop(0).wait()


def test_a_server_that_is_killed_during_a_call():
    with local_server([SERVER]) as server:
        once = ChannelOptions(max_attempts=1)
        with RewardClient(server.target, timeout=30, options=once) as client:
            before = client.score(["count"], ["c"]).scores()[0]
            failures: list[Exception] = []

            def wait() -> None:
                try:
                    client.score(["wait"], ["c"])
                except Exception as error:
                    failures.append(error)

            waiting = threading.Thread(target=wait)
            waiting.start()
            while client.score(["count"], ["c"]).scores()[0] == before:
                pass
            os.kill(server.process.pid, signal.SIGKILL)
            waiting.join()
    (failure,) = failures
    assert isinstance(failure, Unavailable)
    assert BROKEN in str(failure)


@pytest.mark.parametrize(
    ("details", "remedy"),
    [
        (
            "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Failed to connect to remote "
            "host: connect: Connection refused (111)",
            NO_LISTENER,
        ),
        (
            "DNS resolution failed for nowhere.invalid:50051: C-ares status is not ARES_SUCCESS qtype=A "
            "name=nowhere.invalid is_balancer=0: Domain name not found",
            NO_NAME,
        ),
        (
            "failed to connect to all addresses; last error: UNKNOWN: ipv4:192.0.2.1:1: Failed to connect to remote "
            "host: Timeout occurred: FD Shutdown",
            NO_MACHINE,
        ),
        (
            "connections to all backends failing; last error: UNKNOWN: ipv4:192.0.2.1:1: tcp handshaker shutdown",
            NO_MACHINE,
        ),
        (
            "failed to connect to all addresses; last error: UNAVAILABLE: ipv4:127.0.0.1:80: Trying to connect an "
            "http1.x server",
            NO_GRPC,
        ),
        ("failed to connect to all addresses; last error: UNKNOWN: new words", "Is the server running"),
        ("Socket closed", BROKEN),
    ],
)
def test_what_other_versions_of_grpc_say(details, remedy):
    error = call_error(Refusal(grpc.StatusCode.UNAVAILABLE, details=details), "host:1", "palate.v1.RewardService")
    assert f"no answer from host:1: {details}. " in str(error)
    assert remedy in str(error)
