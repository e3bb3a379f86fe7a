"""Certificates and a token from files: what is read, and what is said where a file is of no use."""

import pytest

from benchmarks.protected import make_protection, token_of
from palate.access import Access, AccessError, channel_options
from palate.client import ChannelOptions, Tls


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return make_protection(tmp_path_factory.mktemp("protection"))


def test_nothing_given_is_plaintext():
    assert channel_options(Access()) == ChannelOptions()


def test_everything_given(files):
    access = Access(
        files.ca, files.certificate("trainer"), files.key("trainer"), "reward.example", files.token_file("trainer")
    )
    mutual = files.mutual_tls("trainer")
    tls = Tls(mutual.ca, mutual.certificate, mutual.key, "reward.example")
    assert channel_options(access) == ChannelOptions(tls=tls, token=token_of("trainer"))


def test_a_token_without_tls_has_to_be_asked_for(files):
    token_file = files.token_file("scorer")
    assert not channel_options(Access(token_file=token_file)).allow_plaintext_token
    assert channel_options(Access(token_file=token_file, insecure_token=True)).allow_plaintext_token


def test_no_secret_is_shown(files):
    options = channel_options(
        Access(files.ca, files.certificate("admin"), files.key("admin"), "", files.token_file("admin"))
    )
    assert token_of("admin") not in repr(options)
    assert "PRIVATE" not in repr(options)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda f: Access(ca=f.folder / "nowhere.pem"), r"nowhere\.pem cannot be read: No such file"),
        (lambda f: Access(ca=f.folder), "cannot be read: Is a directory"),
        (lambda f: Access(ca=f.token_file("admin")), r"admin\.token is no PEM file with a certificate"),
        (lambda f: Access(ca=f.ca, certificate=f.certificate("admin")), "certificate and key go together"),
        (lambda f: Access(ca=f.ca, key=f.key("admin")), "certificate and key go together"),
        (
            lambda f: Access(ca=f.ca, certificate=f.key("admin"), key=f.certificate("admin")),
            r"admin\.key is no PEM file with a certificate",
        ),
        (lambda f: Access(ca=f.ca, certificate=f.ca, key=f.ca), r"ca\.pem is no PEM file with a private key"),
        (lambda f: Access(certificate=f.certificate("admin"), key=f.key("admin")), "give ca too"),
        (lambda f: Access(server_name="reward.example"), "give ca too"),
        (lambda f: Access(token_file=f.folder / "nowhere"), "nowhere cannot be read"),
    ],
)
def test_what_cannot_be_used_is_named(files, given, message):
    with pytest.raises(AccessError, match=message):
        channel_options(given(files))


@pytest.mark.parametrize("content", [b"", b"\n", b"two words\n", b"one\ntwo\n", "tök\n".encode(), b"\xff\x00"])
def test_a_file_that_holds_no_token(tmp_path, content):
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(AccessError, match="holds no token") as refusal:
        channel_options(Access(token_file=file))
    assert "two" not in str(refusal.value)
