"""Weights of somebody who means harm: nothing is held for long, nothing is written, nothing is served unchecked."""

import hashlib
import queue
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from transformers import AutoModelForCausalLM

from palate.client import FailedPrecondition, InvalidArgument, PolicyVersion, TensorSpec, WeightsChunk
from palate.client.policy_requests import chunk_requests, manifest_request
from tests.policies import digest_of, weights_of

STAGE = "/palate.v1.PolicyService/StageWeights"


def tree(folder):
    """Every file below a folder with its digest."""
    return {str(f): hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(Path(folder).rglob("*")) if f.is_file()}


@pytest.mark.parametrize(
    "name",
    ["../../../tmp/escaped", "/etc/passwd", "..", "model.norm.weight/../../x", "~/x", "a" * 100_000, "x\nERROR forged"],
)
def test_names_are_never_paths(client, server, folder, other, name):
    """What is staged stays in memory; a name is compared with the model's, and never opened."""
    specs, chunks, _ = weights_of(other)
    wrong = [replace(specs[0], name=name), *specs[1:]]
    before, token = tree(folder), client.acquire_publisher("paths", 1).fencing_token
    with pytest.raises(InvalidArgument, match="not announced"):
        client.stage_weights(token, PolicyVersion("paths", 1, 1, digest_of(wrong)), wrong, chunks)
    assert tree(folder) == before
    assert not Path("/tmp/escaped").exists()
    assert "\nERROR forged" not in server.log.read_text()


def test_what_is_staged_and_committed_touches_no_file(client, folder, other):
    specs, chunks, digest = weights_of(other)
    before, token = tree(folder), client.acquire_publisher("files", 1).fencing_token
    staged = client.stage_weights(token, PolicyVersion("files", 1, 1, digest), specs, chunks)
    client.commit_weights(token, staged.staging_id)
    assert tree(folder) == before
    client.revert_weights(token, PolicyVersion("files", 1, 1, digest))
    assert tree(folder) == before


@pytest.mark.parametrize("name", ["", "a" * 129, "two\nlines", "\x1b[31m", "\N{LINE SEPARATOR}"])
def test_a_run_is_called_something_that_can_be_read(client, name):
    with pytest.raises(InvalidArgument, match="a run_id of 1 to 128 printable characters"):
        client.acquire_publisher(name, 1)


def test_a_version_with_a_long_name_is_refused_in_few_words(client):
    token = client.acquire_publisher("brief", 1).fencing_token
    with pytest.raises(FailedPrecondition, match="the publisher is brief/1; it cannot publish aaa") as caught:
        client.stage_weights(token, PolicyVersion("a" * 1_000_000, 1, 1, "0" * 64), [], [])
    assert len(str(caught.value)) < 3000


def test_uploads_that_stand_still_hold_one_model_at_most(server, other, client):
    """Each begins, sends all but its last chunk, and waits; the next one ends it at once, with its memory."""
    specs, chunks, digest = weights_of(other)
    token = client.acquire_publisher("many", 1).fencing_token
    version, stop = PolicyVersion("many", 1, 1, digest), queue.SimpleQueue()

    def parts():
        yield manifest_request(token, version, specs, None, None).SerializeToString()
        yield from chunk_requests(chunks[:-1])
        stop.get()

    with grpc.insecure_channel(server.target) as channel:
        stage = channel.stream_unary(STAGE)
        calls = [stage.future(parts(), timeout=120) for _ in range(8)]
        for left in range(8, 1, -1):
            ended = next_done(calls)
            assert (left, ended.code()) == (left, grpc.StatusCode.FAILED_PRECONDITION)
            assert "another staging or another publisher replaced this one" in ended.details()
            calls.remove(ended)
        client.acquire_publisher("many", 2)
        assert calls[0].code() is grpc.StatusCode.FAILED_PRECONDITION
    for _ in range(8):
        stop.put(None)


def next_done(calls):
    """The first of the calls that ends."""
    done = queue.SimpleQueue()
    for call in calls:
        call.add_done_callback(done.put)
    return done.get(timeout=60)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((2**63,) * 20_000, "is announced as F32 of shape"), ((0,), "is announced as F32"), ((), "is announced as F32")],
)
def test_a_shape_of_any_size_is_refused_before_it_is_multiplied(client, other, shape, message):
    specs, chunks, _ = weights_of(other)
    wrong = [replace(specs[0], shape=shape), *specs[1:]]
    token = client.acquire_publisher("shapes", 1).fencing_token
    with pytest.raises(InvalidArgument, match=message):
        client.stage_weights(token, PolicyVersion("shapes", 1, 1, digest_of(wrong)), wrong, chunks)


@pytest.mark.parametrize(
    ("positions", "elements", "message"),
    [
        ((0, 1), b"\x00\x00\xc0\x7f" * 2, "holds NaN or infinity"),
        ((1, 0), bytes(8), "are not ascending within its"),
        ((0, 0), bytes(8), "are not ascending within its"),
        ((0, 2**32 - 1), bytes(8), "are not ascending within its"),
        ((0, 1), bytes(8), "do not have the announced SHA-256"),
    ],
)
def test_a_delta_that_lies(client, folder, positions, elements, message):
    """Of two elements; a sender of NaN knows the digest of what comes out as well as the server."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    specs, _, _ = weights_of(model)
    place = next(index for index, spec in enumerate(specs) if spec.name == "model.norm.weight")
    spoilt = [replace(spec, changed_elements=0) for spec in specs]
    spoilt[place] = replace(specs[place], changed_elements=2)
    if "NaN" in message:
        bare = elements + model.get_parameter("model.norm.weight").detach().numpy().tobytes()[len(elements) :]
        spoilt[place] = replace(spoilt[place], sha256=hashlib.sha256(bare).hexdigest())
    token = client.acquire_publisher("deltas", 1).fencing_token
    chunks = [WeightsChunk(place, 0, b"".join(number.to_bytes(4, "little") for number in positions) + elements)]
    version, served = PolicyVersion("deltas", 1, 1, digest_of(spoilt)), client.policy_info().policy_version
    with pytest.raises(InvalidArgument, match=message):
        client.stage_weights(token, version, spoilt, chunks, base=served)


def test_more_is_announced_than_a_message_may_hold(server, client):
    token = client.acquire_publisher("large", 1).fencing_token
    specs = [TensorSpec(f"{number:0500}", "F32", (1,), 4, "0" * 64) for number in range(9000)]
    manifest = manifest_request(token, PolicyVersion("large", 1, 1, "0" * 64), specs, None, None).SerializeToString()
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(server.target, options=options) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.stream_unary(STAGE)(iter([manifest]), timeout=60)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
