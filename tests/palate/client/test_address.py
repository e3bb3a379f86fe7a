"""Where a token may go in plaintext: this machine, in every form that gRPC takes, and nowhere else."""

import socket

import pytest

from palate.client import ChannelOptions, InvalidInput, PolicyClient, RewardClient, Tls
from palate.client.address import Address, host_and_port, servers_behind, stays_here

HERE = [
    "127.0.0.1:50051",
    "127.8.9.1:50051",
    "localhost:50051",
    "[::1]:50051",
    "::1",
    "dns:///localhost:50051",
    "dns:localhost:50051",
    "dns:///127.0.0.1:50051",
    "ipv4:127.0.0.1:50051,127.0.0.2:50051",
    "ipv6:[::1]:50051",
    "unix:/tmp/socket",
    "unix:///tmp/socket",
    "unix-abstract:name",
]
ELSEWHERE = [
    "10.0.0.1:50051",
    "reward:50051",
    "0.0.0.0:50051",
    "[2001:db8::1]:50051",
    "2001:db8::1",
    "localhost.example:50051",
    "127.0.0.1.example:50051",
    "dns:///reward:50051",
    "dns://10.0.0.1/localhost:50051",
    "dns:///127.0.0.1%2eexample:50051",
    "ipv4:127.0.0.1:50051,10.0.0.1:50051",
    "ipv6:[2001:db8::1]:50051",
    "xds:///localhost",
    "vsock:1:50051",
]


@pytest.mark.parametrize("target", HERE)
def test_this_machine(target):
    assert stays_here(target)
    with RewardClient(target, options=ChannelOptions(token="t")):
        pass


def test_a_host_without_a_port():
    assert stays_here("127.0.0.1")
    assert not stays_here("reward")


@pytest.mark.parametrize("target", ELSEWHERE)
def test_other_machines(target):
    assert not stays_here(target)
    for client in (RewardClient, PolicyClient):
        with pytest.raises(InvalidInput, match=r"without TLS.*allow_plaintext_token") as refusal:
            client(target, options=ChannelOptions(token="secret"))
        assert "secret" not in str(refusal.value)
    for options in (
        ChannelOptions(),
        ChannelOptions(token="secret", tls=Tls()),
        ChannelOptions(token="secret", allow_plaintext_token=True),
    ):
        RewardClient("10.0.0.1:50051", options=options).close()


@pytest.mark.parametrize("target", ["", "  ", "http://127.0.0.1:50051", "https://reward:50051", None, 50051])
def test_what_is_no_address(target):
    with pytest.raises(InvalidInput, match="target is"):
        RewardClient(target)


@pytest.mark.parametrize(
    "target",
    ["127.0.0.1:99999", "127.0.0.1:abc", "127.0.0.1:0", "localhost", "dns:///reward", "ipv4:10.0.0.1:1,10.0.0.2"],
)
def test_a_target_without_a_port_that_exists_is_refused_before_anything_is_asked(target):
    with pytest.raises(InvalidInput, match="end it in a port"):
        RewardClient(target)


@pytest.mark.parametrize(
    "target",
    ["[::1]:50051", "dns:///reward:50051", "dns://10.0.0.53/reward:50051", "unix:/tmp/socket", "xds:///reward"],
)
def test_a_target_with_a_port_or_one_that_needs_none_is_taken(target):
    with RewardClient(target) as client:
        assert client.target == target


@pytest.mark.parametrize(
    ("target", "place"),
    [
        ("reward:50051", ("reward", 50051)),
        ("dns:reward:50051", ("reward", 50051)),
        ("dns:///reward:50051", ("reward", 50051)),
        ("[fd00::1]:50051", ("fd00::1", 50051)),
        ("dns://10.0.0.53/reward:50051", None),
        ("ipv4:10.0.0.1:1,10.0.0.2:2", None),
        ("unix:/tmp/socket", None),
        ("xds:///reward", None),
    ],
)
def test_host_and_port(target, place):
    assert host_and_port(target) == place


def test_every_server_behind_a_name(monkeypatch):
    found = [(socket.AF_INET, "10.0.0.2"), (socket.AF_INET6, "fd00::1"), (socket.AF_INET, "10.0.0.2")]
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, port, type: [(f, type, 6, "", (a, port, 0, 0)) for f, a in found]
    )
    expected = [Address("10.0.0.2:50051", "reward"), Address("[fd00::1]:50051", "reward")]
    for target in ("reward:50051", "dns:reward:50051", "dns:///reward:50051"):
        assert servers_behind(target) == expected


@pytest.mark.parametrize(
    "target", ["10.0.0.1:50051", "localhost:50051", "unix:/tmp/socket", "dns://10.0.0.53/reward:1"]
)
def test_what_stands_for_itself(target):
    assert servers_behind(target) == [Address(target)]
    assert servers_behind("ipv4:10.0.0.1:1,10.0.0.2:2") == [Address("10.0.0.1:1"), Address("10.0.0.2:2")]
