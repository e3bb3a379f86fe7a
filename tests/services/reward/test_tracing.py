"""Spans that a real collector gets: of a call, under its caller's, with the stages of the batch it was in."""

import sys

import grpc
import pytest

from palate.v1 import reward_service_pb2 as pb
from palate.v1.common_pb2 import Content
from palate.v1.reward_service_pb2_grpc import RewardServiceStub
from services.runtime import tracing
from services.runtime.tracing import TracingUnavailable, open_traces
from tests.otlp_collector import attributes, collecting
from tests.servers import start_server

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
STAGES = {"tokenize", "queue", "compute"}


@pytest.fixture
def collector():
    with collecting() as found:
        yield found


def test_a_call_and_its_stages_are_traced_under_the_callers_span(exported_bert, collector):
    with start_server("services.reward", exported_bert, "--otlp-endpoint", collector.endpoint) as server:
        with grpc.insecure_channel(server.target) as channel:
            stub = RewardServiceStub(channel)
            items = [pb.ScoreItem(prompt=Content(text="a secret"), completion=Content(text=t)) for t in "xy"]
            stub.Score(pb.ScoreRequest(items=items), timeout=60, metadata=[("traceparent", CALLER)])
            prompt, completions = Content(text="a secret"), [Content(text=text) for text in "uvw"]
            stub.Rank(pb.RankRequest(prompt=prompt, completions=completions), timeout=60)
            with pytest.raises(grpc.RpcError):
                stub.Score(pb.ScoreRequest(), timeout=60)
        server.stop()  # sends what is left
    calls = [span for span in collector.spans if span.name == "palate.v1.RewardService/Score"]
    good, bad = sorted(calls, key=lambda span: attributes(span)["grpc_code"], reverse=True)
    assert (attributes(good)["grpc_code"], attributes(bad)["grpc_code"]) == ("OK", "InvalidArgument")
    assert (good.trace_id.hex(), good.parent_span_id.hex()) == tuple(CALLER.split("-")[1:3])
    assert not bad.parent_span_id
    stages = [span for span in collector.spans if span.parent_span_id == good.span_id]
    assert {span.name for span in stages} == STAGES
    assert len({attributes(span)["batch"] for span in stages if span.name != "tokenize"}) >= 1
    for span in stages:
        assert span.start_time_unix_nano <= span.end_time_unix_nano
    (rank,) = [span for span in collector.spans if span.name == "palate.v1.RewardService/Rank"]
    assert attributes(rank)["grpc_code"] == "OK"
    assert {span.name for span in collector.spans if span.parent_span_id == rank.span_id} == STAGES
    assert "secret" not in str(collector.spans)


def test_without_an_endpoint_nothing_is_traced():
    assert open_traces("", "test").begin("service", "method", "1", {}) is None
    assert tracing.current_span() is None


@pytest.mark.parametrize("endpoint", ["nonsense", "collector:4317", "ftp://a:1", "http://", "http://a:b", "http://[a"])
def test_what_is_no_endpoint_is_refused(endpoint):
    with pytest.raises(TracingUnavailable, match="is no URL with a host"):
        open_traces(endpoint, "test")


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    with pytest.raises(TracingUnavailable, match=r"palate\[serve,otel\]"):
        open_traces("http://127.0.0.1:4317", "test")
