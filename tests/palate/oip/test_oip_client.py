"""The client of the Open Inference Protocol against servers that are not ours: other names, datatypes, and failures."""

import struct
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace

import grpc
import pytest

from palate.audit.endpoints import OipScorer
from palate.audit.items import Text
from palate.client import Failed, InvalidArgument, ItemErrorCode
from palate.oip.client import Incompatible, OipClient, Tensors
from palate.oip.messages import SERVICE, message
from services.reward.oip.protocol import add_to_server

FOREIGN = Tensors("QUESTION", "ANSWER", "VALUE")
PAIRS = [("p", "one"), ("p", "three"), ("p", "nan"), ("p", "seven")]


class Foreign:
    """Scores the length of the answer; refuses a request with "bad" in it, and answers NaN for "nan"."""

    def __init__(self, datatype="FP64", raw=True, drop=0):
        self.datatype, self.raw, self.drop = datatype, raw, drop
        self.requests = []

    def ModelMetadata(self, request, context):
        return message("ModelMetadataResponse")(
            name=request.name,
            versions=["3"],
            platform="other",
            inputs=[{"name": name, "datatype": "BYTES", "shape": [-1, 1]} for name in ("QUESTION", "ANSWER")],
            outputs=[{"name": "VALUE", "datatype": self.datatype, "shape": [-1, 1]}],
        )

    def ModelInfer(self, request, context):
        self.requests.append(request)
        texts = [_unpacked(raw) for raw in request.raw_input_contents]
        if any("bad" in answer for answer in texts[1]):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "one of them is bad")
        scores = [float("nan") if answer == "nan" else float(len(answer)) for answer in texts[1]][self.drop :]
        output = {"name": "VALUE", "datatype": self.datatype, "shape": [len(scores), 1]}
        if self.raw:
            form = {"FP64": "d", "FP32": "f"}[self.datatype]
            return message("ModelInferResponse")(
                outputs=[output], raw_output_contents=[struct.pack(f"<{len(scores)}{form}", *scores)]
            )
        field = {"FP64": "fp64_contents", "FP32": "fp32_contents"}[self.datatype]
        return message("ModelInferResponse")(outputs=[output | {"contents": {field: scores}}])

    def __getattr__(self, name):
        if name in {method.name for method in SERVICE.methods}:
            return lambda request, context: context.abort(grpc.StatusCode.UNIMPLEMENTED, name)
        raise AttributeError(name)


def _unpacked(raw):
    texts = []
    while raw:
        (size,) = struct.unpack_from("<I", raw)
        texts.append(raw[4 : 4 + size].decode())
        raw = raw[4 + size :]
    return texts


@contextmanager
def serving(servicer):
    server = grpc.server(ThreadPoolExecutor(2))
    add_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield SimpleNamespace(target=f"127.0.0.1:{port}")
    finally:
        server.stop(None).wait()


@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
@pytest.mark.parametrize("raw", [True, False])
def test_scores_come_raw_or_typed_and_nan_is_none(datatype, raw):
    servicer = Foreign(datatype, raw)
    with serving(servicer) as server, OipClient(server.target, model="m", tensors=FOREIGN) as client:
        info = client.model_info()
        assert (info.name, info.version, info.platform, info.tells_failures) == ("m", "3", "other", False)
        assert not info.tells_cuts
        outcomes = client.score(PAIRS, version=info.version)
    assert outcomes[:2] + outcomes[3:] == [3.0, 5.0, 5.0]
    assert isinstance(outcomes[2], Failed)
    (request,) = servicer.requests
    assert (request.model_name, request.model_version, dict(request.parameters)) == ("m", "3", {})


def test_a_refused_request_is_taken_apart_until_the_text_at_fault_stands_alone():
    servicer = Foreign()
    texts = [Text("p", each) for each in ("a", "bb", "bad", "dddd", "eeeee")]
    with serving(servicer) as server, OipClient(server.target, tensors=FOREIGN) as client:
        (outcomes,) = OipScorer(client, client.model_info(), 32, lambda _: None).score(texts)
    assert [each for each in outcomes if isinstance(each, float)] == [1.0, 2.0, 4.0, 5.0]
    assert outcomes[2].code is ItemErrorCode.INVALID
    assert "one of them is bad" in outcomes[2].message


def test_a_refusal_reaches_who_asks_without_patience():
    with (
        serving(Foreign()) as server,
        OipClient(server.target, tensors=FOREIGN) as client,
        pytest.raises(InvalidArgument, match="one of them is bad"),
    ):
        client.score([("p", "bad")])


@pytest.mark.parametrize(
    ("tensors", "said"), [(Tensors(), "no input PROMPT"), (Tensors("QUESTION", "ANSWER", "REWARD"), "no output REWARD")]
)
def test_other_names_are_told_with_what_is_there(tensors, said):
    with (
        serving(Foreign()) as server,
        OipClient(server.target, tensors=tensors) as client,
        pytest.raises(Incompatible, match=f"{said}.*--tensors"),
    ):
        client.model_info()


def test_a_reply_that_does_not_fit_is_no_score():
    with (
        serving(Foreign(drop=1)) as server,
        OipClient(server.target, tensors=FOREIGN) as client,
        pytest.raises(Incompatible, match="3 numbers for 4 texts"),
    ):
        client.score(PAIRS)
