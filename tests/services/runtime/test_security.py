"""Who may call what, over real TLS: every RPC of the contract × every kind of caller."""

import asyncio
import hashlib
import queue
import re
import socket
import ssl
import subprocess
import sys
import traceback
import urllib.request
import warnings
from collections import deque
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count, product
from pathlib import Path

import grpc
import pytest
import trustme
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.ports import free_port
from benchmarks.protected import make_protection, token_of
from palate.client import (
    AsyncRewardClient,
    ChannelOptions,
    InvalidArgument,
    Overloaded,
    RewardClient,
    Scored,
    Tls,
    Unauthenticated,
    Unavailable,
)
from palate.local_server import local_server
from palate.oip.messages import NAME, SERVICE
from palate.v1 import admin_service_pb2, policy_service_pb2, reward_service_pb2
from palate.v1.reward_service_pb2 import ScoreStreamRequest
from palate.v1.reward_service_pb2_grpc import RewardServiceStub
from services.runtime.identity import Identities, IdentityFileError, read_identities
from services.runtime.roles import OPEN, TABLE, Role

SERVER = str(Path(__file__).with_name("example_server.py"))
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
RPCS = sorted(
    f"/{service.full_name}/{method.name}"
    for file in (reward_service_pb2, policy_service_pb2, admin_service_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
)
NAMES = ("palate.v1.RewardService", "palate.v1.PolicyService")
CALLERS = ("nobody", "unknown", "expired", *Role)


def digest(token):
    return hashlib.sha256(token.encode()).hexdigest()


def write_identities(path, **changes):
    entries = [{"name": f"{role}-team", "roles": [str(role)], "token_sha256": digest(f"{role}-token")} for role in Role]
    entries += [{"name": f"{role}-pod", "roles": [str(role)], "certificate": f"{role}.pod"} for role in Role]
    entries.append(
        {"name": "old", "roles": ["admin"], "token_sha256": digest("expired-token"), "expires": "2020-01-01"}
    )
    entries[-1]["expires"] = datetime(2020, 1, 1, tzinfo=UTC)
    path.write_text(yaml.safe_dump([entry for entry in entries if entry["name"] not in changes.get("without", ())]))
    return path


def status_of(channel, rpc, metadata=()):
    """The status of a call with an empty message; UNIMPLEMENTED and INVALID mean that the caller got through."""
    try:
        list(channel.stream_stream(rpc)(iter([b""]), timeout=10, metadata=metadata))
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def test_every_rpc_is_in_the_table():
    assert sorted(rpc for rpc in TABLE if rpc.startswith("/palate")) == RPCS
    inference = {f"/{NAME}/{method.name}" for method in SERVICE.methods}
    assert {rpc for rpc in (*TABLE, *OPEN) if rpc.startswith("/inference")} == inference
    assert not OPEN & TABLE.keys()


@pytest.fixture(scope="module")
def token_server(tmp_path_factory):
    identities = write_identities(tmp_path_factory.mktemp("tokens") / "identities.yaml")
    with local_server([SERVER, "--identities", str(identities)]) as server:
        yield server


@pytest.mark.parametrize("caller", CALLERS)
def test_role_matrix_with_tokens(token_server, caller):
    metadata = () if caller == "nobody" else (("authorization", f"Bearer {caller}-token"),)
    with grpc.insecure_channel(token_server.target) as channel:
        found = {rpc: status_of(channel, rpc, metadata) for rpc in [*RPCS, REFLECTION]}
    for rpc, status in found.items():
        if caller in ("nobody", "unknown", "expired"):
            assert status is grpc.StatusCode.UNAUTHENTICATED, rpc
        elif caller in TABLE[rpc]:
            assert status not in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED), rpc
        else:
            assert status is grpc.StatusCode.PERMISSION_DENIED, rpc


def test_two_tokens_are_none(token_server):
    """What stands between may have looked at the other one."""
    tokens = [("authorization", f"Bearer {name}-token") for name in ("unknown", "admin")]
    with grpc.insecure_channel(token_server.target) as channel:
        for metadata in (tokens, tokens[::-1], [tokens[1]] * 2):
            assert status_of(channel, RPCS[0], metadata) is grpc.StatusCode.UNAUTHENTICATED


def test_a_call_is_handled_in_the_name_of_its_identity(token_server):
    for role in ("scorer", "admin"):
        options = ChannelOptions(token=f"{role}-token", max_attempts=1)
        with (
            RewardClient(token_server.target, options=options) as client,
            pytest.raises(InvalidArgument, match=f"identity:{role}-team"),
        ):
            client.score(["who am I"], ["x"])


def test_one_identity_does_not_take_all_calls(tmp_path):
    identities = write_identities(tmp_path / "identities.yaml")

    def client_of(role, target):
        return AsyncRewardClient(target, timeout=20, options=ChannelOptions(token=f"{role}-token", max_attempts=1))

    async def scenario(target):
        async with client_of("scorer", target) as many, client_of("admin", target) as few:
            begun = [asyncio.create_task(many.score(["wait"], ["x"])) for _ in range(12)]
            done = set()
            while len(done) < 5:  # eight places, of which one is kept
                ended, _ = await asyncio.wait(set(begun) - done, return_when=asyncio.FIRST_COMPLETED)
                done |= ended
            assert all(isinstance(call.exception(), Overloaded) for call in done)
            answer = await few.score(["release"], ["x"])
            held = await asyncio.gather(*(set(begun) - done))
            return len(done), len(held), answer.results[0]

    with local_server([SERVER, "--identities", str(identities), "--max-concurrent-calls", "8"]) as server:
        refused, held, answer = asyncio.run(scenario(server.target))
    assert (refused, held) == (5, 7)
    assert isinstance(answer, Scored)


@contextmanager
def mtls_server(folder, *flags):
    """A server that asks for certificates, and the authority that signs them."""
    files = make_protection(folder, "localhost", "reward.example")
    write_identities(folder / "identities.yaml")
    command, authority = [SERVER, *files.token_flags, *files.mtls_flags, *flags], files.authority
    with local_server(command, probe_tls=tls_of(authority, "scorer.pod")) as server:
        yield server, authority


def tls_of(authority, common_name, signer=None, **validity):
    """TLS options of a client with this name."""
    issued = (signer or authority).issue_cert("client.example", common_name=common_name, **validity)
    chain = b"".join(pem.bytes() for pem in issued.cert_chain_pems)
    return Tls(authority.cert_pem.bytes(), chain, issued.private_key_pem.bytes(), "reward.example")


def uncounted(authority):
    """Certificates that no server of this authority takes."""
    past = datetime.now(UTC) - timedelta(days=2)
    return {
        "none": Tls(ca=authority.cert_pem.bytes(), server_name="reward.example"),
        "wrong authority": tls_of(authority, "admin.pod", signer=trustme.CA()),
        "expired": tls_of(authority, "admin.pod", not_before=past - timedelta(days=9), not_after=past),
    }


@pytest.fixture(scope="module")
def protected(tmp_path_factory):
    with mtls_server(tmp_path_factory.mktemp("mtls")) as pair:
        yield pair


@pytest.mark.parametrize("role", Role)
def test_role_matrix_with_certificates(protected, role):
    server, authority = protected
    tls = tls_of(authority, f"{role}.pod")
    credentials = grpc.ssl_channel_credentials(tls.ca, tls.key, tls.certificate)
    name = [("grpc.ssl_target_name_override", "reward.example")]
    with grpc.secure_channel(server.target, credentials, options=name) as channel:
        found = {rpc: status_of(channel, rpc) for rpc in [*RPCS, REFLECTION]}
    refused = {rpc for rpc, status in found.items() if status is grpc.StatusCode.PERMISSION_DENIED}
    assert refused == {rpc for rpc in found if role not in TABLE[rpc]}


@pytest.mark.parametrize("kind", ["none", "wrong authority", "expired"])
def test_no_rpc_is_reached_without_a_certificate_that_counts(protected, kind):
    server, authority = protected
    tls = uncounted(authority)[kind]
    credentials = grpc.ssl_channel_credentials(tls.ca, tls.key, tls.certificate)
    name = [("grpc.ssl_target_name_override", "reward.example")]
    with grpc.secure_channel(server.target, credentials, options=name) as channel:
        found = {rpc: status_of(channel, rpc) for rpc in [*RPCS, REFLECTION]}
    assert set(found.values()) == {grpc.StatusCode.UNAVAILABLE}


def test_a_listed_certificate_scores(protected):
    server, authority = protected
    with RewardClient(server.target, options=ChannelOptions(tls=tls_of(authority, "scorer.pod"))) as client:
        assert isinstance(client.score(["p"], ["c"]).results[0], Scored)


@pytest.mark.parametrize("kind", ["none", "wrong authority", "expired", "not listed", "plaintext"])
def test_a_certificate_that_does_not_count_is_refused(protected, kind):
    server, authority = protected
    tls = {**uncounted(authority), "not listed": tls_of(authority, "stranger.pod"), "plaintext": None}[kind]
    options = ChannelOptions(tls=tls, max_attempts=1)
    expected = Unauthenticated if kind == "not listed" else Unavailable
    with RewardClient(server.target, timeout=10, options=options) as client, pytest.raises(expected):
        client.score(["p"], ["c"])


def test_renewed_certificates_count_for_new_connections_and_broken_ones_do_not(tmp_path):
    """Another authority signs server and clients; who is connected stays, who comes must be of the new one."""
    with mtls_server(tmp_path) as (server, former):
        before = RewardClient(server.target, timeout=20, options=ChannelOptions(tls=tls_of(former, "scorer.pod")))
        with before:
            assert isinstance(before.score(["p"], ["c"]).results[0], Scored)
            renewed = make_protection(tmp_path, "localhost", "reward.example").authority
            write_identities(tmp_path / "identities.yaml")
            after = ChannelOptions(tls=tls_of(renewed, "scorer.pod"), max_attempts=1)
            with RewardClient(server.target, timeout=20, options=after) as client:
                assert isinstance(client.score(["p"], ["c"]).results[0], Scored)
            assert isinstance(before.score(["p"], ["d"]).results[0], Scored)
        (tmp_path / "next").mkdir()
        make_protection(tmp_path / "next", "localhost", "reward.example")
        (tmp_path / "cert.pem").write_bytes((tmp_path / "next" / "cert.pem").read_bytes())  # its key is on its way
        with RewardClient(server.target, timeout=20, options=after) as client:
            assert isinstance(client.score(["p"], ["half"]).results[0], Scored)
        (tmp_path / "cert.pem").write_text("half of a fi")
        with RewardClient(server.target, timeout=20, options=after) as client:
            assert isinstance(client.score(["p"], ["e"]).results[0], Scored)
        late = ChannelOptions(tls=tls_of(former, "scorer.pod"), max_attempts=1)
        with RewardClient(server.target, timeout=20, options=late) as client, pytest.raises(Unavailable):
            client.score(["p"], ["f"])
        log = server.log.read_text()
    assert "certificates have changed" in log
    assert "the last good ones stay" in log
    assert "key.pem is not the key of" in log


def test_a_client_does_not_trust_a_server_of_another_authority_or_name(protected):
    server, authority = protected
    tls = tls_of(authority, "scorer.pod")
    other_authority, other_name = replace(tls, ca=trustme.CA().cert_pem.bytes()), replace(tls, server_name="else.where")
    for fooled, told in ((other_authority, "not of the authority that you trust"), (other_name, "for another name")):
        options = ChannelOptions(tls=fooled, max_attempts=1)
        refusal = pytest.raises(Unavailable, match=told)
        with RewardClient(server.target, timeout=10, options=options) as client, refusal:
            client.score(["p"], ["c"])


def test_tls_on_one_side_only_is_said(protected, token_server):
    server, authority = protected
    for target, tls, told in (
        (server.target, None, "it may want TLS .*, or a certificate of yours"),
        (token_server.target, tls_of(authority, "scorer.pod"), "does not use TLS"),
    ):
        options = ChannelOptions(tls=tls, max_attempts=1)
        with RewardClient(target, timeout=10, options=options) as client, pytest.raises(Unavailable, match=told):
            client.score(["p"], ["c"])


@pytest.mark.parametrize(
    ("flags", "remedy"),
    [
        (["--host", "0.0.0.0"], "say --insecure"),
        (["--host", "::"], "say --insecure"),
        (["--host", "{name}"], "say --insecure"),
        (["--host", "0.0.0.0", "--tls-certificate", "{cert}", "--tls-key", "{key}"], "say --insecure"),
        (["--host", "0.0.0.0", "--identities", "{identities}"], "say --insecure"),
        (["--tls-certificate", "{cert}"], "go together"),
        (["--tls-client-ca", "{ca}"], "needs --identities"),
        (["--tls-client-ca", "{ca}", "--identities", "{identities}"], "needs --tls-certificate and --tls-key"),
        (["--identities", "nowhere.yaml"], "nowhere.yaml cannot be read"),
        (["--tls-certificate", "nowhere.pem", "--tls-key", "{key}"], "nowhere.pem cannot be read"),
        (["--tls-certificate", "{key}", "--tls-key", "{cert}"], "cert.pem is no PEM file with a private key"),
        (["--tls-certificate", "{cert}", "--tls-key", "{other}"], "admin.key is not the key of"),
    ],
)
def test_settings_that_do_not_hold_together_are_refused(tmp_path, flags, remedy):
    files = make_protection(tmp_path)
    places = {"cert": tmp_path / "cert.pem", "key": tmp_path / "key.pem", "ca": files.ca, "other": files.key("admin")}
    places |= {"identities": tmp_path / "identities.yaml", "name": socket.gethostname()}
    command = [sys.executable, SERVER, "--port", "0", "--metrics-port", "0", *(flag.format(**places) for flag in flags)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert remedy in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("protected_host", [True, False])
def test_a_server_listens_beyond_loopback_when_it_is_protected_or_told_to(tmp_path, protected_host):
    files = make_protection(tmp_path)
    flags = [*files.tls_flags, *files.token_flags] if protected_host else ["--insecure"]
    tls = replace(files.tls, server_name="localhost") if protected_host else None
    with local_server([SERVER, *flags], host="0.0.0.0", probe_tls=tls) as server:
        options = ChannelOptions(tls=tls, token=token_of("scorer"), allow_plaintext_token=not protected_host)
        with RewardClient(server.target, options=options) as client:
            assert isinstance(client.score(["p"], ["c"]).results[0], Scored)


def health_of(target, service=""):
    with grpc.insecure_channel(target) as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        return health_pb2_grpc.HealthStub(channel).Check(request, timeout=5).status


def test_health_stays_open(token_server):
    assert health_of(token_server.target) == health_pb2.HealthCheckResponse.SERVING


def test_health_has_a_plaintext_port_of_its_own_beside_mtls(tmp_path):
    """Probes of Kubernetes have no certificate; the port answers them, and nothing else."""
    port = free_port()
    with mtls_server(tmp_path, "--health-port", str(port)) as (server, _):
        target = f"127.0.0.1:{port}"
        assert {health_of(target, name) for name in ("", "live", *NAMES)} == {health_pb2.HealthCheckResponse.SERVING}
        with grpc.insecure_channel(target) as channel:
            found = {rpc: status_of(channel, rpc) for rpc in [*RPCS, REFLECTION]}
        assert set(found.values()) == {grpc.StatusCode.UNIMPLEMENTED}
        with pytest.raises(grpc.RpcError) as refused:
            health_of(server.target)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


def test_metrics_have_a_port_of_their_own_which_stays_on_loopback(tmp_path):
    files = make_protection(tmp_path)
    tls, flags = replace(files.tls, server_name="localhost"), [*files.tls_flags, *files.token_flags]
    with local_server([SERVER, *flags], host="0.0.0.0", probe_tls=tls) as server:
        page = urllib.request.urlopen(f"http://{server.metrics_target}/metrics", timeout=5).read().decode()
        assert "grpc_server_started_total" in page
        port = int(server.metrics_target.rpartition(":")[2])
        with pytest.raises(ConnectionRefusedError):  # any address but the one of loopback that it is told
            socket.create_connection(("127.0.0.2", port), timeout=5)


def entry(name="a", **fields):
    """Of an identities file, as YAML; a certificate's where nothing else is said."""
    return {"name": name, "roles": ["admin"], **(fields or {"certificate": f"{name}.pod"})}


TOKEN = {"token_sha256": digest("a-token")}
WRONG = [
    ([], "a list with at least one"),
    ([{"not": "an identity"}], "an identity has the fields"),
    ([{"name": "a", "roles": ["scorer"]}], "either token_sha256 or certificate"),
    ([entry(**TOKEN, certificate="c")], "either token_sha256 or certificate"),
    ([{**entry(), "roles": ["scorerr"]}], "roles are scorer"),
    ([{**entry(), "roles": []}], "roles is empty"),
    ([entry(token_sha256="abc")], "64 hexadecimal digits"),
    ([entry(token_sha256=None)], "64 hexadecimal digits"),
    ([entry(token_sha256="\N{LATIN SMALL LETTER E WITH ACUTE}" * 64)], "64 hexadecimal digits"),
    ([entry(token_sha256="\N{FULLWIDTH DIGIT ONE}" * 64)], "64 hexadecimal digits"),
    ([entry(token_sha256="z" * 64)], "64 hexadecimal digits"),
    ([entry(token_sha256=f"{'a' * 64}\n")], "64 hexadecimal digits"),
    ([entry("a", **TOKEN), entry("b", **TOKEN)], "each token_sha256 belongs to one entry, .* 'a', 'b'$"),
    ([entry("a", **TOKEN), entry("b", token_sha256=digest("a-token").upper())], "each token_sha256 belongs to one"),
    ([entry("a", certificate="c"), entry("b", certificate="c")], "each certificate belongs to one entry, .* 'a', 'b'$"),
    ([entry("a", certificate="c"), entry("a", **TOKEN)], "each name belongs to one entry, .* 'a', 'a'$"),
    ([entry("a\nb")], "needs a name, a line of text"),
    ([entry(certificate="c\nd")], "a line of text"),
    ([entry(certificate="c", expires="soon")], "expires is a date"),
    ([entry(certificate="c", max_calls=0)], "max_calls is how many"),
    ([entry(certificate="c", max_calls=True)], "max_calls is how many"),
    ([entry(certificate="c", calls_per_second=float("nan"))], "calls_per_second is a number"),
    ([entry(certificate="c", calls_per_second=0)], "calls_per_second is a number"),
    ([entry(certificate="c", calls_per_second=5e-324)], "calls_per_second is a number"),
    ([entry(certificate="c", calls_per_second=10**400)], "calls_per_second is a number"),
]


@pytest.mark.parametrize(("entries", "message"), WRONG)
def test_a_wrong_identities_file_is_explained(tmp_path, entries, message):
    path = tmp_path / "identities.yaml"
    path.write_text(yaml.safe_dump(entries))
    with pytest.raises(IdentityFileError, match=message):
        read_identities(path)


@pytest.mark.parametrize(
    "line",
    [
        '- {{name: a, roles: [scorer], token_sha256: "{secret}}}',
        "- {{name: a, roles: [scorer], token_sha256: *{secret}}}",
        "- {{name: a, roles: [scorer], token_sha256: !x {secret}}}",
        "- {{name: a, roles: [{secret}], certificate: c}}",
        "- {{name: a, roles: {secret}, certificate: c}}",
        "- {{name: a, roles: [scorer], token_sha256: {secret}, {secret}: 1, {secret}: 2}}",
        "- name: a\n  token_sha256: {secret}: x",
        "- name: a\n   token_sha256: {secret}\n  roles: [scorer]",
        "- {{name: a, roles: [scorer], certificate: c, expires: {secret}}}",
        "- {{name: a, roles: [scorer], certificate: c, max_calls: {secret}}}",
        "{secret}",
    ],
)
def test_what_is_wrong_in_an_identities_file_is_told_in_a_line_without_its_words(tmp_path, line):
    """A quotation mark is forgotten, or a digest or a token stands in the wrong place."""
    secret, path = digest("a-token"), tmp_path / "identities.yaml"
    path.write_text(line.format(secret=secret))
    with pytest.raises(IdentityFileError) as found:
        read_identities(path)
    told = "".join(traceback.format_exception(found.value))
    assert not any(secret[begin : begin + 8] in told for begin in range(len(secret) - 8))
    assert "\n" not in str(found.value)


def test_a_token_taken_out_of_the_file_stops_working_and_a_wrong_file_changes_nothing(tmp_path, monkeypatch, caplog):
    path = write_identities(tmp_path / "identities.yaml")
    identities = Identities(path)
    assert identities.of_token("scorer-token").name == "scorer-team"
    write_identities(path, without=("scorer-team",))
    monkeypatch.setattr(identities, "_looked", float("-inf"))  # a second later
    assert identities.of_token("scorer-token") is None
    for entries, message in WRONG:
        path.write_text(yaml.safe_dump(entries))
        monkeypatch.setattr(identities, "_looked", float("-inf"))
        caplog.clear()
        assert identities.of_token("admin-token").name == "admin-team"
        assert identities.of_certificate(["admin.pod"]).name == "admin-pod"
        assert "the last good state stays" in caplog.text
        assert re.search(message, caplog.text, re.MULTILINE)


def test_a_digest_may_be_in_capitals(tmp_path):
    path = tmp_path / "identities.yaml"
    path.write_text(yaml.safe_dump([entry(token_sha256=digest("a-token").upper())]))
    assert Identities(path).of_token("a-token").name == "a"


def test_an_identity_with_a_key_given_twice_is_refused(tmp_path):
    file = tmp_path / "identities.yaml"
    file.write_text("- name: a\n  roles: [scorer]\n  certificate: a\n  roles: [admin]\n")
    with pytest.raises(IdentityFileError, match="a key is given twice, again in line 4"):
        read_identities(file)


def test_a_token_that_is_taken_out_ends_a_stream_at_its_next_message(tmp_path):
    """Of two streams that are open, the one whose token goes is told so; the other goes on."""
    path = write_identities(tmp_path / "identities.yaml")

    def stream_of(channel, role):
        requests = queue.SimpleQueue()
        requests.put(ScoreStreamRequest(options={}))
        metadata = (("authorization", f"Bearer {role}-token"),)
        return requests, RewardServiceStub(channel).ScoreStream(iter(requests.get, None), metadata=metadata, timeout=60)

    def answer(requests, call, number):
        requests.put(ScoreStreamRequest(item={"id": number, "item": {}}))
        return next(call).id

    with (
        local_server([SERVER, "--identities", str(path)]) as server,
        grpc.insecure_channel(server.target) as channel,
    ):
        gone, stays = stream_of(channel, "scorer"), stream_of(channel, "admin")
        assert answer(*gone, 1) == answer(*stays, 1) == 1
        write_identities(path, without=("scorer-team",))
        with pytest.raises(grpc.RpcError) as refusal:
            deque((answer(*gone, number) for number in count(2)), maxlen=0)
        assert refusal.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert answer(*stays, 2) == 2
        stays[0].put(None)
        assert list(stays[1]) == []
        gone[0].put(None)


def with_limits(path, **limits):
    """The identities, of whom the scorer's token has these limits."""
    write_identities(path)
    entries = yaml.safe_load(path.read_text())
    entries[0].update(limits)
    assert entries[0]["roles"] == ["scorer"]
    path.write_text(yaml.safe_dump(entries))
    return path


def test_an_identity_has_no_more_calls_at_once_than_it_may(tmp_path):
    identities = with_limits(tmp_path / "identities.yaml", max_calls=2)

    def client_of(role, target):
        return AsyncRewardClient(target, timeout=30, options=ChannelOptions(token=f"{role}-token", max_attempts=1))

    async def scenario(target):
        async with client_of("scorer", target) as limited, client_of("admin", target) as other:
            calls = [asyncio.create_task(limited.score(["wait"], ["x"])) for _ in range(3)]
            (refused,), held = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            assert isinstance(refused.exception(), Overloaded)
            assert "2 calls at once are all that this identity may have" in str(refused.exception())
            await other.score(["release"], ["x"])
            return len(await asyncio.gather(*held))

    with local_server([SERVER, "--identities", str(identities)]) as server:
        assert asyncio.run(scenario(server.target)) == 2


def test_an_identity_begins_no_more_calls_than_its_rate(tmp_path):
    identities = with_limits(tmp_path / "identities.yaml", calls_per_second=0.001)
    options = ChannelOptions(token="scorer-token", max_attempts=1)
    with (
        local_server([SERVER, "--identities", str(identities)]) as server,
        RewardClient(server.target, timeout=20, options=options) as limited,
        RewardClient(server.target, timeout=20, options=replace(options, token="admin-token")) as other,
    ):
        limited.score(["p"], ["c"])
        with pytest.raises(Overloaded, match=r"may begin 0\.001 calls a second") as refusal:
            limited.score(["p"], ["c"])
        assert 900 < refusal.value.retry_after <= 1000
        for _ in range(5):
            other.score(["p"], ["c"])


def handshake(target, authority, version):
    """One with a certificate that counts, in this version of TLS alone."""
    context = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
    authority.issue_cert("client.example", common_name="scorer.pod").configure_cert(context)
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = context.maximum_version = version
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.set_alpn_protocols(["h2"])
    host, port = target.rsplit(":", 1)
    with (
        socket.create_connection((host, int(port)), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="reward.example") as wrapped,
    ):
        return wrapped.version()


def test_old_tls_is_refused(protected):
    server, authority = protected
    for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
        with pytest.raises(ssl.SSLError):
            handshake(server.target, authority, version)
    assert handshake(server.target, authority, ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
    assert handshake(server.target, authority, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"


def test_secrets_are_in_no_log_metric_or_error(tmp_path):
    """A server that talks as much as it can, called with tokens that count, that do not, and in broken headers."""
    files = make_protection(tmp_path)
    secrets = [token_of(role) for role in Role] + ["a-token-that-nobody-has"]
    told = []
    command = [SERVER, *files.tls_flags, *files.token_flags, "--log-level", "DEBUG"]
    with local_server(command, probe_tls=files.tls) as server:
        credentials = grpc.ssl_channel_credentials(files.ca.read_bytes())
        with grpc.secure_channel(server.target, credentials) as channel:
            for secret, scheme in product(secrets, ("Bearer ", "bearer  ", "Basic ", "")):
                call = channel.stream_stream("/palate.v1.RewardService/Score")
                try:
                    list(call(iter([b""]), timeout=20, metadata=(("authorization", scheme + secret),)))
                except grpc.RpcError as error:
                    told.append(f"{error.code()} {error.details()} {error.trailing_metadata()}")
        told.append(urllib.request.urlopen(f"http://{server.metrics_target}/metrics", timeout=10).read().decode())
        told.append(server.log.read_text())
    private = files.folder.joinpath("key.pem").read_text().splitlines()[1]
    digests = [digest(secret) for secret in secrets]
    text = "\n".join(told)
    assert "StatusCode.UNAUTHENTICATED" in text
    assert "StatusCode.PERMISSION_DENIED" in text
    assert "configuration" in text
    assert [secret for secret in [*secrets, *digests, private] if secret in text] == []
