"""Where a token may go in plaintext: this machine, in every form that gRPC takes, and nowhere else."""

import pytest

from palate.client import ChannelOptions, InvalidInput, PolicyClient, RewardClient, Tls
from palate.client.address import stays_here

HERE = [
    "127.0.0.1:50051",
    "127.8.9.1:50051",
    "127.0.0.1",
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
    "reward",
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
