"""`palate ping`, `score` and `rank` against a server that asks for certificates and tokens, and is known by a name."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from benchmarks.protected import make_protection, token_of
from palate.client import ChannelOptions, RewardClient
from palate.local_server import local_server
from tests.tiny_models import make_tiny_reward

NAME = "reward.example"


@pytest.fixture(scope="module")
def protection(tmp_path_factory):
    return make_protection(tmp_path_factory.mktemp("protection"), NAME)


@pytest.fixture(scope="module")
def server(protection, tmp_path_factory):
    folder = make_tiny_reward(tmp_path_factory.mktemp("reward") / "tiny", "encoder", 0)
    command = ["-m", "services.reward", "--model", str(folder), "--engine", "fake"]
    tls = replace(protection.mutual_tls("scorer"), server_name=NAME)
    with local_server([*command, *protection.token_flags, *protection.mtls_flags], probe_tls=tls) as running:
        yield running


@pytest.fixture
def access(protection):
    """What the identity with the role scorer gives a command."""
    files = {"ca": protection.ca, "certificate": protection.certificate("scorer"), "key": protection.key("scorer")}
    return {**{f"--{name}": str(file) for name, file in files.items()}, "--server-name": NAME}


def palate(*arguments, options, **environment):
    given = [word for pair in options.items() for word in pair]
    command = [sys.executable, "-c", "from palate.command import main; main()", *map(str, arguments), *given]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment or None)


def test_ping(server, access):
    done = palate("ping", "--target", server.target, options=access)
    assert done.returncode == 0, done.stderr
    assert "tiny" in done.stdout


@pytest.mark.parametrize("columns", ["20", "80"])
def test_ping_shows_the_revision_whole(server, access, protection, columns):
    options = ChannelOptions(tls=replace(protection.mutual_tls("scorer"), server_name=NAME))
    with RewardClient(server.target, options=options) as client:
        revision = client.model_info().provenance.revision
    done = palate("ping", "--target", server.target, options=access, COLUMNS=columns)
    assert f"revision                 {revision}" in done.stdout.splitlines()


@pytest.mark.parametrize("command", ["ping", "score", "rank"])
def test_a_token_does_not_leave_the_machine_without_tls(protection, tmp_path, command):
    (tmp_path / "in.jsonl").write_text(json.dumps({"prompt": "p", "completion": "a", "completions": ["a"]}))
    files = [] if command == "ping" else [tmp_path / "in.jsonl", tmp_path / "out.jsonl"]
    options = {"--target": "reward.invalid:50051", "--token-file": str(protection.token_file("scorer"))}
    done = palate(command, *files, options=options)
    told = " ".join((done.stdout + done.stderr).replace("│", " ").split())
    assert done.returncode == 2
    assert "the token would go to reward.invalid:50051 without TLS" in told
    assert "--insecure-token" in told
    assert "Traceback" not in told
    assert token_of("scorer") not in told


def test_a_token_leaves_the_machine_where_one_insists(protection):
    options = {"--target": "reward.invalid:50051", "--token-file": str(protection.token_file("scorer"))}
    done = palate("ping", "--insecure-token", options=options)
    assert done.returncode == 2
    assert "That name is not known here" in " ".join(done.stdout.split())


def test_help_says_where_a_token_goes():
    for command in ("ping", "score", "rank"):
        told = " ".join(palate(command, "--help", options={}).stdout.replace("│", " ").split())
        assert "--insecure-token" in told
        assert "without TLS it is sent to this machine alone" in told


def test_a_token_counts_more_than_the_certificate_it_comes_with(server, access, protection):
    for role, told in (("trainer", "tiny"), ("generator", "generator-team may not call")):
        options = {**access, "--token-file": str(protection.token_file(role))}
        done = palate("ping", "--target", server.target, options=options)
        assert told in " ".join(done.stdout.split())
        assert token_of(role) not in done.stdout + done.stderr


def test_score_and_rank(server, access, tmp_path):
    (tmp_path / "in.jsonl").write_text(json.dumps({"prompt": "p", "completion": "a", "completions": ["a", "b"]}))
    for command in ("score", "rank"):
        out = tmp_path / f"{command}.jsonl"
        done = palate(command, tmp_path / "in.jsonl", out, "--target", server.target, options=access)
        assert done.returncode == 0, done.stderr
        assert json.loads(out.read_text())["scored_by"]["model"] == "tiny"


def test_the_environment_says_it_too(server, access):
    names = {f"PALATE_{option[2:].upper().replace('-', '_')}": value for option, value in access.items()}
    assert palate("ping", options={}, PALATE_TARGET=server.target, **names).returncode == 0


@pytest.mark.parametrize("lost", ["--ca", "--certificate", "--server-name"])
def test_what_is_missing_is_said(server, access, lost):
    options = {option: value for option, value in access.items() if option != lost}
    done = palate("ping", "--target", server.target, options=options)
    assert done.returncode == 2
    told = " ".join((done.stdout + done.stderr).replace("│", " ").split())
    expected = {
        "--ca": "give ca too, the server's authority",
        "--certificate": "certificate and key go together",
        "--server-name": "no answer from",
    }
    assert expected[lost] in told
    assert "Traceback" not in told
