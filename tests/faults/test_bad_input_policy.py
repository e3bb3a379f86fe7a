"""Everything wrong that can be sent to a policy server: each a clear error, and a server that goes on."""

import re
import socket
import subprocess
import sys
from dataclasses import replace

import grpc
import pytest
import torch

from palate.client import (
    ChannelOptions,
    FailedPrecondition,
    InvalidArgument,
    InvalidInput,
    Message,
    MessageTooLarge,
    PolicyClient,
    PolicyVersion,
    SamplingParams,
    TokenIds,
)
from palate.v1 import common_pb2 as common
from palate.v1 import policy_service_pb2 as pb
from tests.policies import normal_call, weights_of
from tests.tiny_models import make_tiny_policy

MODULE = "services.policy"
SHORT = SamplingParams(max_new_tokens=4, ignore_eos=True)
NAN, INFINITY = float("nan"), float("inf")


def digest_of(client):
    return client.policy_info().tokenizer_digest


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temperature": NAN}, "temperature is nan"),
        ({"temperature": -1.0}, r"temperature is -1\.0"),
        ({"temperature": 0.0}, r"temperature is 0\.0"),
        ({"temperature": INFINITY}, "temperature is inf"),
        ({"temperature": 1e300}, r"temperature is 1e\+300"),
        ({"temperature": 1e-300}, "temperature is 1e-300"),
        ({"top_p": NAN}, "top_p is nan"),
        ({"top_p": -0.5}, r"top_p is -0\.5"),
        ({"top_p": 0.0}, r"top_p is 0\.0"),
        ({"top_p": 1e300}, r"top_p is 1e\+300"),
        ({"top_k": 321}, "top_k is 321"),
        ({"top_k": 2**32 - 1}, "top_k is 4294967295"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"max_new_tokens": 256}, "would pass the policy's 256"),
        ({"max_new_tokens": 2**32 - 1}, "would pass the policy's 256"),
        ({"stop": ("",)}, "stop has an empty text"),
        ({"stop": ("x" * 257,)}, "stop takes at most 16"),
        ({"stop": ("x",) * 17}, "stop takes at most 16"),
    ],
)
def test_sampling_parameters(client, wrong, message):
    with pytest.raises(InvalidArgument, match=message):
        list(client.generate(["a"], sampling=replace(SHORT, **wrong)))


@pytest.mark.parametrize("temperature", [1e-6, 1e6])
@pytest.mark.parametrize("more", [{}, {"top_k": 5}, {"top_p": 0.9}])
def test_the_furthest_temperatures_give_finite_logprobs(client, temperature, more):
    options = replace(SHORT, temperature=temperature, **more)
    for completion in client.generate(["a", "b"], sampling=options, seeds=[1, 2]):
        assert torch.tensor(completion.logprobs).isfinite().all()
        assert max(completion.logprobs) <= 0


@pytest.mark.parametrize("temperature", [NAN, -1.0, 0.0, INFINITY, 1e300, 1e-300])
def test_temperature_of_logprobs(client, temperature):
    with pytest.raises(InvalidArgument, match="temperature is"):
        client.compute_logprobs([((1,), (2,))], tokenizer_digest=digest_of(client), temperature=temperature)


def test_negative_counts_on_the_wire(server, client):
    """A negative varint is the largest unsigned number to whoever reads it as one."""
    request = pb.GenerateRequest(prompts=[pb.GeneratePrompt(prompt=common.Content(text="a"))])
    minus_one = b"\xff" * 9 + b"\x01"
    sampling = b"\x10" + minus_one + b"\x20\x04"  # top_k = -1, max_new_tokens = 4
    raw = request.SerializeToString() + b"\x1a" + bytes([len(sampling)]) + sampling
    assert refused(server, "Generate", raw, grpc.StatusCode.INVALID_ARGUMENT) == (
        "top_k is 4294967295; the vocabulary has 320 tokens (0 keeps all)"
    )


def test_more_than_a_call_may_ask_for(client):
    with pytest.raises(InvalidArgument, match="1025 prompts or sequences; a call takes 1024"):
        list(client.generate(["a"] * 1025, sampling=SHORT))
    with pytest.raises(InvalidArgument, match="4294967295 completions; a call may ask for 4096"):
        list(client.generate(["a"], sampling=SHORT, completions_per_prompt=2**32 - 1))
    with pytest.raises(InvalidArgument, match="the request is empty"):
        list(client.generate([], sampling=SHORT))
    with pytest.raises(InvalidArgument, match="the request is empty"):
        client.compute_logprobs([], tokenizer_digest=digest_of(client))


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ((), "no token ids"),
        ((1, 320), "token id 320; the vocabulary has 320"),
        ((2**32 - 1,), "token id 4294967295"),
        ((1,) * 253, "would pass the policy's 256"),
    ],
)
def test_token_ids(client, ids, message):
    with pytest.raises(InvalidArgument, match=message):
        list(client.generate([TokenIds(ids, digest_of(client))], sampling=SHORT))


@pytest.mark.parametrize(
    ("prompt", "completion", "message"),
    [
        ((), (1,), "at least one prompt id"),
        ((1,), (), "one completion id"),
        ((1,), (320,), "token id 320"),
        ((2**32 - 1,), (1,), "token id 4294967295"),
        ((1,) * 200, (2,) * 57, "257 tokens; the policy reads 256"),
    ],
)
def test_token_ids_of_logprobs(client, prompt, completion, message):
    with pytest.raises(InvalidArgument, match=message):
        client.compute_logprobs([((1,), (2,)), (prompt, completion)], tokenizer_digest=digest_of(client))


def test_token_ids_of_another_tokenizer(client):
    with pytest.raises(FailedPrecondition, match="the token ids are of tokenizer ffff"):
        list(client.generate([TokenIds((1, 2), "f" * 64)], sampling=SHORT))
    with pytest.raises(FailedPrecondition, match="the token ids are of tokenizer ffff"):
        client.compute_logprobs([((1,), (2,))], tokenizer_digest="f" * 64)
    with pytest.raises(InvalidArgument, match="tokenizer_digest is missing"):
        list(client.generate([TokenIds((1, 2), "")], sampling=SHORT))
    with pytest.raises(InvalidArgument, match="tokenizer_digest is missing"):
        client.compute_logprobs([((1,), (2,))], tokenizer_digest="")


@pytest.mark.parametrize("prompt", ["a\0b", [Message("user", "a\0b")], [Message("us\0er", "a")]])
def test_nul(client, prompt):
    with pytest.raises(InvalidArgument, match="NUL character"):
        list(client.generate(["fine", prompt], sampling=SHORT))


def test_a_conversation_without_messages(client):
    with pytest.raises(InvalidArgument, match="prompt 0 is empty"):
        list(client.generate([[]], sampling=SHORT))


@pytest.mark.parametrize("where", ["prompt", "role", "stop", "run_id"])
def test_lone_surrogates_on_the_wire(server, client, where):
    marked = "XXX"
    content = common.Content(text=marked if where == "prompt" else "a")
    if where == "role":
        content = common.Content(conversation=common.Conversation(messages=[common.ChatMessage(role=marked)]))
    request = pb.GenerateRequest(
        prompts=[pb.GeneratePrompt(prompt=content)],
        sampling=pb.SamplingParams(max_new_tokens=2, stop=[marked] if where == "stop" else []),
    )
    method = "Generate"
    if where == "run_id":
        method, request = "AcquirePublisher", pb.AcquirePublisherRequest(run_id=marked, incarnation=1)
    raw = request.SerializeToString()
    assert raw.count(b"XXX") == 1
    message = refused(server, method, raw.replace(b"XXX", b"\xed\xa0\x80"), grpc.StatusCode.INVALID_ARGUMENT)
    assert "text that is not UTF-8" in message


def test_a_client_cannot_send_lone_surrogates(client):
    with pytest.raises(InvalidInput, match=r"prompts\[1\] holds a lone surrogate at character 0"):
        client.generate(["a", "\ud800"], sampling=SHORT)


@pytest.mark.parametrize("method", ["Generate", "ComputeLogprobs", "AcquirePublisher", "StageWeights", "CommitWeights"])
@pytest.mark.parametrize("raw", [b"\xff\xff\xff\xff", b"\x0a\x7f", b"\x0a" * 1000], ids=["tag", "short", "nested"])
def test_malformed_protobuf(server, client, method, raw):
    assert "malformed protobuf" in refused(server, method, raw, grpc.StatusCode.INVALID_ARGUMENT)


def test_malformed_protobuf_inside_a_stream_of_weights(server, client, other):
    specs, _, digest = weights_of(other)
    token = client.acquire_publisher("malformed", 1).fencing_token
    manifest = pb.StageWeightsRequest(
        manifest=pb.WeightsManifest(
            fencing_token=token,
            version=pb.PolicyVersion(run_id="malformed", incarnation=1, step=1, digest=digest),
            kind=pb.WEIGHTS_KIND_FULL,
            tensors=[
                pb.TensorSpec(name=s.name, dtype=s.dtype, shape=s.shape, size_bytes=s.size_bytes, sha256=s.sha256)
                for s in specs
            ],
        )
    )
    message = refused(
        server, "StageWeights", manifest.SerializeToString(), grpc.StatusCode.INVALID_ARGUMENT, b"\x12\x7f"
    )
    assert "malformed protobuf" in message


def test_a_prompt_of_a_megabyte(client):
    for text in ("a" * 2**20, "word " * (2**20 // 5), "😀" * 2**18):
        with pytest.raises(InvalidArgument, match=r"prompt 0 has \d+ tokens.*shorten the prompt"):
            list(client.generate([text], sampling=SHORT))


def test_a_message_over_the_limit(server, client):
    with pytest.raises(MessageTooLarge, match="the limit is 4194304"):
        list(client.generate(["a" * 5 * 2**20], sampling=SHORT))
    careless = ChannelOptions(max_message_bytes=64 * 2**20)
    with (
        PolicyClient(server.target, options=careless) as other,
        pytest.raises(InvalidArgument, match="larger than max"),
    ):
        list(other.generate(["a" * 5 * 2**20], sampling=SHORT))


def test_another_version_than_required(client):
    required = PolicyVersion("nobody", 1, 1)
    with pytest.raises(FailedPrecondition, match="nobody/1/1 is expected and the initial weights"):
        list(client.generate(["a"], sampling=SHORT, required_policy_version=required))
    with pytest.raises(FailedPrecondition, match="nobody/1/1 is expected"):
        client.compute_logprobs([((1,), (2,))], tokenizer_digest=digest_of(client), required_policy_version=required)


@pytest.mark.parametrize(("run_id", "incarnation"), [("", 1), ("x" * 129, 1), ("run", 0)])
def test_publishers_without_a_name_or_number(client, run_id, incarnation):
    with pytest.raises(InvalidArgument, match="a publisher has a run_id of 1 to 128 printable characters"):
        client.acquire_publisher(run_id, incarnation)


def test_a_port_in_use(server, folder):
    port = server.target.rpartition(":")[2]
    result = started("--model", str(folder), "--port", port)
    assert result.returncode == 1
    assert re.search(rf"cannot listen on 127\.0\.0\.1:{port}.*Port 0 picks a free one", result.stderr)
    assert "Traceback" not in result.stderr
    with PolicyClient(server.target) as client:
        assert normal_call(client).token_ids  # still the first one


def test_a_metrics_port_in_use(folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = started("--model", str(folder), "--port", "0", metrics_port=taken.getsockname()[1])
    assert result.returncode == 1
    assert "--metrics-port 0 picks a free port" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("missing", ["folder", "config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_model(tmp_path, missing):
    path = tmp_path / "model"
    if missing != "folder":
        (make_tiny_policy(path, seed=0) / missing).unlink()
    result = started("--model", str(path), "--port", "0")
    assert result.returncode == 1
    assert (str(path) if missing == "folder" else missing) in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


def test_a_truncated_checkpoint(tmp_path):
    file = make_tiny_policy(tmp_path, seed=0) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    result = started("--model", str(tmp_path), "--port", "0")
    assert result.returncode == 1
    assert "model.safetensors is not a whole safetensors file" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("modle: {folder}", "modle is unknown; did you mean model?"),
        ("model: {folder}\nfrozn: true", "frozn is unknown; did you mean frozen?"),
        ("model: {folder}\ndtype: float31", "dtype: Input should be 'float32'"),
        ("- model", "holds no names with values"),
    ],
)
def test_a_configuration_with_a_mistake(folder, tmp_path, content, message):
    file = tmp_path / "policy.yaml"
    file.write_text(content.format(folder=folder))
    result = started("--config", str(file))
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def started(*flags, metrics_port=0):
    """A server that is expected to end by itself."""
    command = [sys.executable, "-m", MODULE, "--metrics-port", str(metrics_port), *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def refused(server, method, raw, code, *more):
    """Sends bytes as they are; returns the message of the expected status."""
    with grpc.insecure_channel(server.target) as channel:
        call = channel.stream_stream(f"/palate.v1.PolicyService/{method}")  # on the wire all kinds of calls are alike
        with pytest.raises(grpc.RpcError) as refusal:
            list(call(iter([raw, *more]), timeout=30))
    assert refusal.value.code() is code
    return refusal.value.details()
