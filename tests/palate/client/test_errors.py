"""Statuses become exceptions that say what to do."""

import re
from pathlib import Path

import grpc
import pytest

from palate.client import (
    CallError,
    Cancelled,
    ChannelOptions,
    InternalError,
    MessageTooLarge,
    PalateError,
    RewardClient,
    Unavailable,
    errors,
)
from palate.client.errors import call_error


class Refusal(grpc.RpcError):
    """What gRPC raises, made by hand."""

    def __init__(self, code, trailing=(), details="details"):
        self._code, self._trailing, self._details = code, trailing, details

    def code(self):
        return self._code

    def details(self):
        return self._details

    def trailing_metadata(self):
        return self._trailing


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_status_has_an_exception(code):
    error = call_error(Refusal(code), "host:1", "palate.v1.RewardService")
    assert isinstance(error, CallError)
    assert error.code is code


def test_the_documented_tree_is_the_tree():
    drawn = re.findall(r"^([ │]*)[├└]── (\w+)|^(PalateError)$", errors.__doc__, re.MULTILINE)
    tree = {(indent, name or root) for indent, name, root in drawn}
    expected = {("", "PalateError")}
    expected |= {("", kind.__name__) for kind in PalateError.__subclasses__() if kind.__module__ == errors.__name__}
    expected |= {(" " * 4, kind.__name__) for kind in CallError.__subclasses__()}
    expected |= {("    │   ", kind.__name__) for kind in errors.InvalidArgument.__subclasses__()}
    assert tree == expected
    page = (Path(__file__).parents[3] / "docs" / "clients.md").read_text()
    for kind in CallError.__subclasses__():
        assert f"`{kind.__name__}`" in page


def test_unknown_statuses_are_bugs():
    assert type(call_error(Refusal(grpc.StatusCode.UNKNOWN), "host:1", "palate.v1.RewardService")) is InternalError


def test_a_call_that_a_stopping_server_dropped_is_unavailable():
    error = call_error(Refusal(grpc.StatusCode.CANCELLED, details="CANCELLED"), "host:1", "palate.v1.RewardService")
    assert (type(error), error.code) == (Unavailable, grpc.StatusCode.UNAVAILABLE)
    assert "host:1" in str(error)
    assert "shutting down" in str(error)
    own = call_error(
        Refusal(grpc.StatusCode.CANCELLED, details="Locally cancelled by application!"),
        "host:1",
        "palate.v1.RewardService",
    )
    assert type(own) is Cancelled


def test_a_stream_that_ended_while_it_was_sent_is_unavailable():
    core = Refusal(grpc.StatusCode.INTERNAL, details="Internal error from Core")
    error = call_error(core, "host:1", "palate.v1.RewardService")
    assert (type(error), error.code) == (Unavailable, grpc.StatusCode.UNAVAILABLE)
    assert "The connection broke during the call" in str(error)


def test_a_stream_that_a_proxy_reset_is_unavailable():
    """What Envoy does where the server dies that was answering."""
    details = "Stream removed (RST_STREAM (Received RST_STREAM with error code 2))"
    error = call_error(Refusal(grpc.StatusCode.INTERNAL, details=details), "host:1", "palate.v1.RewardService")
    assert (type(error), error.code) == (Unavailable, grpc.StatusCode.UNAVAILABLE)
    assert "The connection broke during the call" in str(error)


def test_pushback_and_request_id_are_read():
    trailing = (("palate-request-id", "abc"), ("grpc-retry-pushback-ms", "250"))
    error = call_error(Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, trailing), "host:1", "palate.v1.RewardService")
    assert (error.request_id, error.retry_after) == ("abc", 0.25)


def test_a_negative_pushback_is_no_time_to_wait():
    error = call_error(
        Refusal(grpc.StatusCode.UNAVAILABLE, (("grpc-retry-pushback-ms", "-1"),)), "host:1", "palate.v1.RewardService"
    )
    assert error.retry_after is None


def test_a_request_over_the_limit_is_not_sent():
    options = ChannelOptions(max_message_bytes=1000)
    with RewardClient("127.0.0.1:1", options=options) as client, pytest.raises(MessageTooLarge, match="send fewer"):
        client.score(["p" * 2000], ["c"])
