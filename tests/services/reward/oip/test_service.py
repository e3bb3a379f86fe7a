"""The protocol over a real server: the same scores as `palate.v1`, and every refusal with its status."""

import json
import math
import struct
import urllib.request

import grpc
import numpy as np
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from prometheus_client import CollectorRegistry

from benchmarks.protected import make_protection, token_of
from palate.client import RewardClient, Truncation
from palate.oip.messages import NAME, message
from palate.v1 import reward_service_pb2 as reward
from services.reward.config import RewardConfig
from services.reward.metrics import RewardMetrics
from services.reward.oip.protocol import add_to_server
from services.reward.oip.service import InferenceServicer
from services.reward.oip.signature import OUTPUTS
from services.reward.registry import Registry
from services.runtime.admission import Admission
from services.runtime.health import Health
from services.runtime.identity import Guard
from services.runtime.interceptors import CallInterceptor
from services.runtime.metrics import ServerMetrics
from tests.oip_client import OipClient, column, infer_request, outputs_of, packed, table, texts_request
from tests.reward_folders import texts
from tests.servers import start_server

PAIRS = texts(8, seed=7)
PROMPTS, COMPLETIONS = zip(*PAIRS, strict=True)


def chats_request(pairs, **fields):
    talks = [[{"role": "user", "content": p}, {"role": "assistant", "content": c}] for p, c in pairs]
    return infer_request(column("MESSAGES", [json.dumps(talk).encode() for talk in talks]), **fields)


def refused(client, request, rpc="ModelInfer"):
    with pytest.raises(grpc.RpcError) as error:
        client.call(rpc, request)
    return error.value.code(), error.value.details()


@pytest.fixture(scope="module")
def reference(server):
    with RewardClient(server.target) as palate:
        yield palate


def test_health_and_metadata(client, reference):
    revision = reference.model_info().provenance.revision
    assert client.call("ServerLive").live
    assert client.call("ServerReady").ready
    for name, version, ready in (
        ("chatty", "", True),
        ("chatty", revision, True),
        ("chatty", "1", False),
        ("nobody", "", False),
    ):
        assert client.call("ModelReady", message("ModelReadyRequest")(name=name, version=version)).ready is ready
    found = client.call("ServerMetadata")
    assert found.name == "palate"
    assert "schedule_policy" in found.extensions
    model = client.call("ModelMetadata", message("ModelMetadataRequest")(name="chatty"))
    assert (model.name, list(model.versions), model.platform) == ("chatty", [revision], "palate_onnx")
    inputs = {each.name: (each.datatype, list(each.shape)) for each in model.inputs}
    assert inputs["PROMPT"] == ("BYTES", [-1, 1])
    assert inputs["INPUT_IDS"] == ("INT64", [-1, -1])
    assert [each.name for each in model.outputs] == list(OUTPUTS)


@pytest.mark.parametrize("model", ["chatty", "plain"])
def test_texts_score_as_in_the_contract(client, reference, model):
    expected = reference.score(PROMPTS, COMPLETIONS, model=model)
    reply = client.call("ModelInfer", texts_request(PAIRS, model_name=model, id="seven"))
    assert outputs_of(reply)["REWARD"] == expected.scores()
    assert outputs_of(reply)["TOKENS"] == [result.token_count for result in expected.results]
    assert (reply.model_name, reply.model_version, reply.id) == (model, expected.provenance.revision, "seven")
    assert reply.parameters["engine"].string_param == "onnx"


def test_chat_and_raw_texts_score_as_texts(client):
    typed = outputs_of(client.call("ModelInfer", texts_request(PAIRS)))
    assert outputs_of(client.call("ModelInfer", chats_request(PAIRS)))["REWARD"] == typed["REWARD"]
    inputs = [{"name": name, "datatype": "BYTES", "shape": [len(PAIRS)]} for name in ("PROMPT", "RESPONSE")]
    raw = [packed([text.encode() for text in side]) for side in (PROMPTS, COMPLETIONS)]
    reply = client.call("ModelInfer", infer_request(*inputs, raw=raw, outputs=["REWARD", "TOKENS"]))
    assert [output.name for output in reply.outputs] == ["REWARD", "TOKENS"]
    rewards, tokens = reply.raw_output_contents
    assert np.frombuffer(rewards, "<f4").tolist() == typed["REWARD"]
    assert np.frombuffer(tokens, "<i4").tolist() == typed["TOKENS"]


def test_token_ids_score_as_their_texts(client, reference):
    rows = [reference.explain(prompt, completion).token_ids for prompt, completion in PAIRS]
    digest = client.call("ModelInfer", texts_request(PAIRS[:1])).parameters["tokenizer_digest"].string_param
    assert digest == reference.model_info().tokenizer_digest
    inputs = table("tokens", rows), column("sequence_lengths", [len(row) for row in rows], "INT64")
    reply = client.call("ModelInfer", infer_request(*inputs, parameters={"tokenizer_digest": digest}))
    assert outputs_of(reply)["REWARD"] == reference.score(PROMPTS, COMPLETIONS).scores()
    code, details = refused(client, infer_request(*inputs, parameters={"tokenizer_digest": "0" * 64}))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "of tokenizer 000000000000" in details


def test_truncation_and_a_long_text(client, reference):
    long = [("p", "plan " * 5000)]
    code, details = refused(client, texts_request(long))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "item 0" in details
    reply = outputs_of(client.call("ModelInfer", texts_request(long, parameters={"truncation": "left"})))
    assert reply["TRUNCATED"] == [True]
    assert reply["REWARD"] == reference.score(["p"], ["plan " * 5000], truncation=Truncation.LEFT).scores()


def test_partial_keeps_the_scores_of_the_others(client):
    pairs = [PAIRS[0], ("p", ""), PAIRS[1], ("p", "plan " * 5000)]
    request = texts_request(pairs, parameters={"partial": True}, outputs=["REWARD"])
    request.inputs[0].contents.bytes_contents[2] = b"\xff"
    found = outputs_of(client.call("ModelInfer", request))
    alone = outputs_of(client.call("ModelInfer", texts_request(PAIRS[:1])))
    assert found["REWARD"][0] == alone["REWARD"][0]
    assert all(map(math.isnan, found["REWARD"][1:]))
    invalid, too_long = reward.ITEM_ERROR_CODE_INVALID, reward.ITEM_ERROR_CODE_TOO_LONG
    assert found["STATUS"] == [0, invalid, invalid, too_long]
    request.parameters["partial"].bool_param = False
    code, details = refused(client, request)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "item 1" in details
    assert "3 of 4 items failed" in details


def test_priority_and_timeout(client):
    for priority in (0, 1, 2, 3):
        client.call("ModelInfer", texts_request(PAIRS, parameters={"priority": priority, "timeout": 20_000_000}))
    code, _ = refused(client, texts_request(PAIRS, parameters={"timeout": 1}))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize(
    ("changes", "code", "says"),
    [
        ({"model_name": "nobody"}, "NOT_FOUND", "'chatty', 'plain'"),
        ({"model_version": "1"}, "FAILED_PRECONDITION", "revision '1'"),
        ({"parameters": {"sequence_id": 4}}, "INVALID_ARGUMENT", "sequence_id"),
        ({"outputs": ["LOSS"]}, "INVALID_ARGUMENT", "'LOSS'"),
        ({"raw": [struct.pack("<I", 2**32 - 1)] * 2}, "INVALID_ARGUMENT", "'PROMPT' has contents"),
    ],
)
def test_refusals(client, changes, code, says):
    found, details = refused(client, texts_request(PAIRS, **changes))
    assert found.name == code
    assert says in details


def test_a_hostile_length_and_too_many_items_are_refused(client):
    bare = {"name": "MESSAGES", "datatype": "BYTES", "shape": [1, 1]}
    _, details = refused(client, infer_request(bare, raw=[struct.pack("<I", 2**32 - 1)]))
    assert "'MESSAGES': element 0 claims 4294967295 bytes, 0 are left" in details
    _, details = refused(client, infer_request({**bare, "shape": [51, 1]}, raw=[b"\0" * 204]))
    assert "takes 50" in details


def test_unknown_models_have_no_metadata(client):
    for fields, code in (({"name": "nobody"}, "NOT_FOUND"), ({"name": "plain", "version": "1"}, "FAILED_PRECONDITION")):
        found, _ = refused(client, message("ModelMetadataRequest")(**fields), "ModelMetadata")
        assert found.name == code


def test_malformed_bytes_are_an_invalid_argument_and_extensions_unimplemented(server):
    with grpc.insecure_channel(server.target) as channel:
        for rpc, code in (("ModelInfer", "INVALID_ARGUMENT"), ("ModelConfig", "UNIMPLEMENTED")):
            with pytest.raises(grpc.RpcError) as error:
                channel.unary_unary(f"/{NAME}/{rpc}")(b"\xff\xff", timeout=30)
            assert error.value.code().name == code


def test_calls_are_counted_and_described(server, client):
    client.call("ModelInfer", texts_request(PAIRS))
    with urllib.request.urlopen(f"http://{server.metrics_target}/metrics", timeout=30) as page:
        assert f'grpc_method="ModelInfer",grpc_service="{NAME}"' in page.read().decode()
    with grpc.insecure_channel(server.target) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = [
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=name)
            for name in (NAME, "palate.v1.RewardService", "inference.Nothing")
        ] + [reflection_pb2.ServerReflectionRequest(all_extension_numbers_of_type="inference.ModelInferRequest")]
        ours, contract, nothing, extensions = stub.ServerReflectionInfo(iter(asked), timeout=30)
    assert b"GRPCInferenceService" in ours.file_descriptor_response.file_descriptor_proto[0]
    assert contract.file_descriptor_response.file_descriptor_proto
    assert nothing.HasField("error_response")
    assert extensions.all_extension_numbers_response.base_type_name == "inference.ModelInferRequest"


def test_roles(exported_llama, tmp_path):
    flags = [*make_protection(tmp_path).token_flags, "--engine", "fake", "--name", "chatty"]
    with (
        start_server("services.reward", exported_llama, *flags) as server,
        grpc.insecure_channel(server.target) as channel,
    ):
        nobody, generator, scorer = (
            OipClient(channel, role and token_of(role)) for role in ("", "generator", "scorer")
        )
        assert nobody.call("ServerLive").live
        assert nobody.call("ServerReady").ready
        assert nobody.call("ModelReady", message("ModelReadyRequest")(name="chatty")).ready
        assert refused(nobody, None, "ServerMetadata")[0] is grpc.StatusCode.UNAUTHENTICATED
        assert refused(nobody, texts_request(PAIRS))[0] is grpc.StatusCode.UNAUTHENTICATED
        assert generator.call("ServerMetadata").name == "palate"
        assert generator.call("ModelMetadata", message("ModelMetadataRequest")(name="chatty")).name == "chatty"
        assert refused(generator, texts_request(PAIRS))[0] is grpc.StatusCode.PERMISSION_DENIED
        assert len(outputs_of(scorer.call("ModelInfer", texts_request(PAIRS)))["REWARD"]) == len(PAIRS)


async def test_health_is_answered_while_models_load_and_while_the_server_drains(exported_llama):
    collected = CollectorRegistry()
    health, config = Health([NAME], ["model"]), RewardConfig(model=exported_llama)
    registry = Registry(lambda _: pytest.fail("no model is put"), RewardMetrics(collected), 1)
    admission = Admission(health, 1)
    interceptor = CallInterceptor([NAME], Guard(None), admission, ServerMetrics(collected), 60.0)
    server = grpc.aio.server(interceptors=[interceptor])
    add_to_server(InferenceServicer(registry, config, health), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()

    async def answer(rpc):
        call = channel.unary_unary(f"/{NAME}/{rpc}", response_deserializer=message(f"{rpc}Response").FromString)
        return await call(b"", timeout=30)

    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            for loaded in (False, True):
                health.set("model", loaded)
                assert (await answer("ServerLive")).live
                assert (await answer("ServerReady")).ready is loaded
                assert not (await answer("ModelReady")).ready
            health.set("model", False)
            with pytest.raises(grpc.aio.AioRpcError, match="still loading"):
                await answer("ModelInfer")
            health.drain()
            admission.refuse()
            assert (await answer("ServerLive")).live
            assert not (await answer("ServerReady")).ready
            with pytest.raises(grpc.aio.AioRpcError, match="shutting down"):
                await answer("ServerMetadata")
    finally:
        await server.stop(0)
