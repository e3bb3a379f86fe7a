"""`palate doctor` against real servers, well and with faults made on purpose; it must name each."""

import hashlib
import http.server
import json
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.protected import make_protection
from palate.client import PolicyClient, PolicyVersion, TensorSpec, WeightsChunk
from palate.doctor.command import app
from palate.local_server import local_server
from palate.models.weights import TensorEntry, weights_digest
from tests.servers import start_server
from tests.tiny_models import make_tiny_policy, make_tiny_reward

EXAMPLE = str(Path(__file__).parents[2] / "services" / "runtime" / "example_server.py")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("doctor")
    make_tiny_reward(root / "reward", "encoder", 0)
    make_tiny_reward(root / "other", "encoder", 1)
    make_tiny_policy(root / "policy", seed=0)
    return root


@pytest.fixture(scope="module")
def reward(folders):
    with start_server("services.reward", folders / "reward", "--engine", "fake") as running:
        yield running


@pytest.fixture(scope="module")
def policy(folders):
    with start_server("services.policy", folders / "policy", "--engine", "fake") as running:
        yield running


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return make_protection(tmp_path_factory.mktemp("protection"))


@pytest.fixture(scope="module")
def protected(folders, files):
    flags = ("--engine", "fake", *files.token_flags, *files.tls_flags)
    command = ["-m", "services.reward", "--model", str(folders / "reward"), *flags]
    with local_server(command, probe_tls=files.tls) as running:
        yield running


@pytest.fixture
def diagnose(tmp_path):
    """Exit code and {(replica or role's count, question): finding} of the command with these options."""

    def ask(*words, timeout="10"):
        out = tmp_path / "findings.json"
        done = CliRunner().invoke(app, [*map(str, words), "--json", str(out), "--timeout", timeout])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.output
        document = json.loads(out.read_text())
        assert document["ok"] == (done.exit_code == 0)
        assert ("not healthy" in done.output) != document["ok"]
        return done.exit_code, {(each["replica"], each["check"]): each for each in document["findings"]}

    return ask


def port_of(server):
    return server.target.rpartition(":")[2]


def is_bad(findings, replica, check, *signs):
    finding = findings[replica, check]
    assert finding["verdict"] == "bad", finding
    assert finding["remedy"]
    for sign in signs:
        assert sign in f"{finding['found']} {finding['remedy']}", finding
    return True


def test_everything_is_well(diagnose, reward, policy):
    asked = {"--reward": reward, "--policy": policy}
    metrics = {f"{option}-metrics": server.metrics_target.rpartition(":")[2] for option, server in asked.items()}
    targets = {option: server.target for option, server in asked.items()}
    code, findings = diagnose(*(word for pair in (targets | metrics).items() for word in pair))
    assert code == 0, findings
    worse = {check for (_, check), finding in findings.items() if finding["verdict"] != "good"}
    assert worse == {"model", "policy"}  # a fake engine is one to be warned of
    assert "8 of 8 built-in texts scored, twice the same bits" in findings[reward.target, "scores"]["found"]
    assert "fake float32" in findings[reward.target, "model"]["found"]
    assert all("ready 1" in findings[server.target, "metrics"]["found"] for server in asked.values())


def test_replicas_that_agree(diagnose, folders, reward):
    with start_server("services.reward", folders / "reward", "--engine", "fake") as twin:
        code, findings = diagnose("--reward", f"ipv4:{reward.target},{twin.target}")
        assert code == 0
        assert "apart on 8 texts" in findings["all 2", "scores"]["found"]
        assert findings["all 2", "revisions"]["found"].startswith("all have ")
        assert (twin.target, "scores") in findings


def test_one_name_is_as_many_replicas_as_it_has_addresses(diagnose, folders, reward, monkeypatch):
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, 0)) for ip in ("127.0.0.2", "127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *asked, **more: found)
    command = ["-m", "services.reward", "--model", str(folders / "reward"), "--engine", "fake"]
    with local_server(command, host="127.0.0.2", port=int(port_of(reward))):
        monkeypatch.undo()
    monkeypatch.setattr("palate.client.address.socket.getaddrinfo", lambda *asked, **more: found)
    code, findings = diagnose("--reward", f"dns:///reward:{port_of(reward)}")
    monkeypatch.undo()
    assert code == 1
    assert findings[f"127.0.0.1:{port_of(reward)}", "connection"]["verdict"] == "good"
    assert is_bad(findings, f"127.0.0.2:{port_of(reward)}", "connection", "Nothing listens there")


def test_mixed_revisions(diagnose, folders, reward):
    with start_server("services.reward", folders / "other", "--engine", "fake") as other:
        code, findings = diagnose("--reward", f"ipv4:{reward.target},{other.target}")
        assert code == 1
        assert is_bad(findings, "all 2", "revisions", reward.target, other.target, "A rollout is under way")
        assert findings["all 2", "engines"]["verdict"] == "good"
        assert ("all 2", "scores") not in findings


def test_policies(diagnose, folders, policy):
    """A frozen one takes no weights, and one that was published to serves others than one that was not."""
    with start_server("services.policy", folders / "policy", "--engine", "fake", "--frozen") as frozen:
        assert diagnose("--ref-policy", frozen.target)[0] == 0
        code, findings = diagnose("--policy", frozen.target)
        assert (code, is_bad(findings, frozen.target, "publishing", "without --frozen")) == (1, True)
        assert "as loaded" in findings[frozen.target, "policy"]["found"]
        publish_table(policy.target)
        both = f"ipv4:{policy.target},{frozen.target}"
        _, findings = diagnose("--policy", both, "--ref-policy", policy.target)
        assert is_bad(findings, "all 2", "versions", "run run-7, incarnation 1, step 3", "A publish is under way")
        assert findings["all 2", "tokenizers"]["verdict"] == "good"
        assert findings["with reference", "tokenizers"]["verdict"] == "good"
        assert findings[policy.target, "publishing"]["verdict"] == "warning"  # as a reference it ought to be frozen


def publish_table(target):
    """Publishes a fake engine's weights as step 3 of run-7."""
    with PolicyClient(target) as client:
        values = np.arange(client.policy_info().vocab_size, dtype="<f4")
        entry = TensorEntry("logits", "F32", values.shape, values.nbytes, hashlib.sha256(values.tobytes()).hexdigest())
        spec = TensorSpec(entry.name, entry.dtype, entry.shape, entry.size_bytes, entry.sha256)
        token = client.acquire_publisher("run-7", 1).fencing_token
        version = PolicyVersion("run-7", 1, 3, weights_digest([entry]))
        staged = client.stage_weights(token, version, [spec], [WeightsChunk(0, 0, values.tobytes())])
        client.commit_weights(token, staged.staging_id)


def test_a_certificate_a_token_and_a_role_that_are_right(diagnose, protected, files):
    code, findings = diagnose(
        "--reward", protected.target, "--ca", files.ca, "--token-file", files.token_file("scorer")
    )
    assert code == 0, findings
    assert "valid until" in findings[protected.target, "certificate"]["found"]
    assert "is for 127.0.0.1" in findings[protected.target, "name"]["found"]


def test_a_wrong_token_and_a_wrong_role(diagnose, protected, files, tmp_path):
    (tmp_path / "token").write_text("wrong")
    code, findings = diagnose("--reward", protected.target, "--ca", files.ca, "--token-file", tmp_path / "token")
    assert (code, is_bad(findings, protected.target, "credentials", "no valid credentials", "SHA-256")) == (1, True)
    token = files.token_file("generator")
    code, findings = diagnose("--reward", protected.target, "--ca", files.ca, "--token-file", token)
    assert is_bad(
        findings, protected.target, "credentials", "generator-team may not call", "it is for: admin, expediter, scorer"
    )


def test_another_authority_another_name_and_no_tls(diagnose, protected, reward, files, tmp_path):
    other = make_protection(tmp_path)
    _, findings = diagnose("--reward", protected.target, "--ca", other.ca)
    assert is_bad(findings, protected.target, "certificate", "not of the authority that you trust", "--ca")
    _, findings = diagnose("--reward", protected.target, "--ca", files.ca, "--server-name", "reward.example")
    assert is_bad(findings, protected.target, "name", "is for 127.0.0.1, localhost, not for reward.example")
    _, findings = diagnose("--reward", reward.target, "--ca", files.ca)
    assert is_bad(findings, reward.target, "certificate", "no TLS at this port", "Leave --ca out")
    _, findings = diagnose("--reward", protected.target)
    assert is_bad(findings, protected.target, "connection", "it may want TLS")


def test_files_of_ones_own_that_cannot_be_used(diagnose, protected, files, tmp_path):
    own = ("--certificate", files.certificate("scorer"), "--key", files.key("trainer"))
    _, findings = diagnose("--reward", protected.target, "--ca", files.ca, *own)
    assert is_bad(findings, protected.target, "own files", "KEY_VALUES_MISMATCH", "--key the key of --certificate")
    (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\nnone\n-----END CERTIFICATE-----\n")
    _, findings = diagnose("--reward", protected.target, "--ca", tmp_path / "ca.pem")
    assert is_bad(findings, protected.target, "own files", "whole PEM file")


@contextmanager
def serving(files, begins, ends):
    """A gRPC server with a certificate that is valid for these days from now."""
    moments = [datetime.now(UTC) + timedelta(days=days) for days in (begins, ends)]
    issued = files.authority.issue_cert("127.0.0.1", not_before=moments[0], not_after=moments[1])
    pair = (issued.private_key_pem.bytes(), b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(0).wait()


@pytest.mark.parametrize(
    ("begins", "ends", "verdict", "told"),
    [(-9, -2, "bad", "expired 2 days ago"), (2, 9, "bad", "not valid before"), (-9, 2, "warning", "2 days from now")],
)
def test_dates_of_a_certificate(diagnose, files, begins, ends, verdict, told):
    with serving(files, begins, ends) as target:
        code, findings = diagnose("--reward", target, "--ca", files.ca)
        assert code == 1  # it serves nothing else either
        assert findings[target, "certificate"]["verdict"] == verdict
        assert told in findings[target, "certificate"]["found"]


def test_a_certificate_of_ones_own_that_is_missing_or_strange(diagnose, files, folders, tmp_path):
    other = make_protection(tmp_path)
    command = ["-m", "services.reward", "--model", str(folders / "reward"), "--engine", "fake"]
    tls = files.mutual_tls("scorer")
    with local_server([*command, *files.token_flags, *files.mtls_flags], probe_tls=tls) as server:
        own = ("--certificate", files.certificate("scorer"), "--key", files.key("scorer"))
        assert diagnose("--reward", server.target, "--ca", files.ca, *own)[0] == 0
        code, findings = diagnose("--reward", server.target, "--ca", files.ca)
        assert (code, is_bad(findings, server.target, "certificate", "give --certificate and --key")) == (1, True)
        strange = ("--certificate", other.certificate("scorer"), "--key", other.key("scorer"))
        _, findings = diagnose("--reward", server.target, "--ca", files.ca, *strange)
        assert is_bad(findings, server.target, "certificate", "does not take your certificate")


def test_a_server_that_drains(diagnose, folders):
    flags = ("--engine", "fake", "--drain-delay-seconds", "60")
    with start_server("services.reward", folders / "reward", *flags) as server:
        server.process.send_signal(signal.SIGTERM)
        while "draining" not in server.log.read_text():
            pass
        code, findings = diagnose("--reward", server.target)
        assert (code, is_bad(findings, server.target, "health", "NOT_SERVING", "It drains")) == (1, True)
        assert findings[server.target, "scores"]["verdict"] == "good"
        server.process.kill()


def test_nothing_listens_and_no_such_name(diagnose, files):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        target = f"127.0.0.1:{taken.getsockname()[1]}"
    code, findings = diagnose("--reward", target, "--policy", "nowhere.invalid:50052")
    assert (code, is_bad(findings, target, "connection", "Nothing listens there")) == (1, True)
    assert is_bad(findings, "nowhere.invalid:50052", "address", "Names of a cluster")
    _, findings = diagnose("--reward", target, "--ca", files.ca)
    assert is_bad(findings, target, "connection", "refused", "network policy")


def test_somebody_elses_server(diagnose, policy, files):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as web:
        threading.Thread(target=web.serve_forever).start()
        target = f"127.0.0.1:{web.server_address[1]}"
        _, findings = diagnose("--reward", target)
        assert is_bad(findings, target, "connection", "does not speak gRPC")
        _, findings = diagnose("--reward", target, "--ca", files.ca)
        assert is_bad(findings, target, "certificate", "no TLS at this port")
        _, findings = diagnose("--policy", policy.target, "--policy-metrics", web.server_address[1])
        assert is_bad(findings, policy.target, "metrics", "no answer from")
        web.shutdown()
    _, findings = diagnose("--reward", policy.target)
    assert is_bad(findings, policy.target, "health", "serves palate.v1.RewardService")
    assert is_bad(findings, policy.target, "calls", "it serves palate.v1.PolicyService")
    _, findings = diagnose("--reward", policy.target, "--reward-metrics", policy.metrics_target.rpartition(":")[2])
    assert is_bad(findings, policy.target, "metrics", "shows no palate_reward_queue_tokens")
    _, findings = diagnose("--policy", policy.target, "--policy-metrics", policy.target.rpartition(":")[2])
    assert is_bad(findings, policy.target, "metrics", "does not speak HTTP")


def test_who_hangs(diagnose, files):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"127.0.0.1:{silent.getsockname()[1]}"
        _, findings = diagnose("--reward", target, timeout="0.5")
        assert is_bad(findings, target, "connection", "in time")
        _, findings = diagnose("--reward", target, "--ca", files.ca, timeout="0.5")
        assert is_bad(findings, target, "certificate", "says nothing")


def test_options_that_cannot_be_used():
    assert CliRunner().invoke(app, []).exit_code == 2
    assert CliRunner().invoke(app, ["--reward", "http://here:1"]).exit_code == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--timeout", "inf"], "less than or equal to 31622400"),
        (["--timeout", "1e12"], "less than or equal to 31622400"),
        (["--timeout", "1e9"], "less than or equal to 31622400"),
        (["--json", "/"], "--json / cannot be written: Is a directory"),
        (["--json", "/nowhere/x.json"], "--json /nowhere/x.json cannot be written: No such file or directory"),
    ],
)
def test_an_option_that_cannot_be_used_is_explained(words, told):
    done = CliRunner().invoke(app, ["--reward", "127.0.0.1:1", *words], env={"COLUMNS": "160"})
    assert done.exit_code == 2
    assert told in done.output
    assert isinstance(done.exception, SystemExit)
