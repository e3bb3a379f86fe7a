"""The policy server as users run it: a process of its own, reached through `palate.client`."""

import subprocess
import sys
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import grpc
import pytest
from transformers import AutoModelForCausalLM

from palate.client import (
    FailedPrecondition,
    FinishReason,
    InvalidArgument,
    NotFound,
    PolicyClient,
    PolicyVersion,
    SamplingParams,
    TokenIds,
)
from palate.models.weights import describe_tensors, untied_state_dict, weights_digest
from palate.v1 import common_pb2 as common
from palate.v1 import policy_service_pb2 as pb
from palate.v1.policy_service_pb2_grpc import PolicyServiceStub
from tests.policies import full_forward, weights_of
from tests.servers import start_server
from tests.tiny_models import make_tiny_policy, make_tiny_reward

MODULE = "services.policy"
PROMPTS = [f"{word} time there was" for word in ("Once upon a", "One", "In the", "What", "A long", "This", "No", "An")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_policy(tmp_path_factory.mktemp("served") / "tiny", seed=0)


@pytest.fixture(scope="module")
def server(folder):
    with start_server(MODULE, folder, "--threads", "1", "--max-batch-rows", "64") as running:
        yield running


@pytest.fixture
def client(server):
    with PolicyClient(server.target, timeout=60) as connected:
        yield connected


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Another model of the same shape, as a trainer would hold it."""
    folder = make_tiny_policy(tmp_path_factory.mktemp("other"), seed=1)
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def generated(client, prompts=PROMPTS, seeds=None, **sampling):
    options = SamplingParams(**{"max_new_tokens": 16, **sampling})
    seeds = seeds or list(range(len(prompts)))
    completions = client.generate(prompts, sampling=options, seeds=seeds)
    return sorted(completions, key=lambda completion: completion.prompt_index)


def test_says_what_it_serves(client, folder):
    info = client.policy_info()
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert info.policy_version == PolicyVersion(digest=weights_digest(describe_tensors(untied_state_dict(model))))
    assert (info.model, info.engine, info.dtype, info.frozen) == ("tiny", "transformers", "float32", False)
    assert (info.eos_token_id, info.vocab_size, info.max_tokens) == (2, 320, 256)
    assert "publishing" in info.capabilities


def test_seeds_decide_whatever_the_batch_is(client):
    prompts = PROMPTS * 8
    in_64 = generated(client, prompts)
    in_8 = generated(client, prompts[8:16], seeds=list(range(8, 16)))
    for place in range(8):
        (alone,) = generated(client, [prompts[8 + place]], seeds=[8 + place])
        assert alone.token_ids == in_8[place].token_ids == in_64[8 + place].token_ids
        assert alone.text == in_64[8 + place].text
        assert alone.logprobs == pytest.approx(in_64[8 + place].logprobs, abs=1e-4)
        assert alone.seed == 8 + place


def test_a_strict_call_gives_the_same_bits_whatever_else_is_drawn(client, server):
    assert "strict" in client.policy_info().capabilities
    strict = SamplingParams(max_new_tokens=24, temperature=1.5)

    def bits():
        completions = client.generate(PROMPTS, sampling=strict, seeds=range(8), completions_per_prompt=3, strict=True)
        return {(c.prompt_index, c.completion_index): (c.token_ids, c.logprobs) for c in completions}

    alone = bits()
    with PolicyClient(server.target, timeout=60) as other, ThreadPoolExecutor(4) as callers:
        lengths = SamplingParams(max_new_tokens=150, ignore_eos=True)
        beside = [callers.submit(lambda n=n: list(other.generate(PROMPTS[:n], sampling=lengths))) for n in range(1, 5)]
        assert bits() == alone
        for call in beside:
            assert all(len(completion.token_ids) == 150 for completion in call.result())


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_are_those_of_the_model(client, folder, temperature):
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    completions = generated(client, temperature=temperature)
    info = client.policy_info()
    pairs = [(completion.prompt_token_ids, completion.token_ids) for completion in completions]
    computed = client.compute_logprobs(pairs, temperature=temperature, tokenizer_digest=info.tokenizer_digest)
    assert computed.policy_version == info.policy_version
    for completion, logprobs in zip(completions, computed.logprobs, strict=True):
        expected = full_forward(model, completion, temperature)
        assert completion.logprobs == pytest.approx(expected, abs=1e-4)
        assert logprobs == pytest.approx(expected, abs=1e-4)


def test_token_ids_say_the_same_as_their_text(client):
    (from_text,) = generated(client, [PROMPTS[0]])
    ids = TokenIds(from_text.prompt_token_ids, client.policy_info().tokenizer_digest)
    (from_ids,) = generated(client, [ids])
    assert (from_ids.token_ids, from_ids.text) == (from_text.token_ids, from_text.text)


def test_finish_reasons(client):
    completions = generated(client, PROMPTS * 6, max_new_tokens=120, temperature=1.5)
    reasons = {completion.finish_reason for completion in completions}
    assert reasons == {FinishReason.STOP, FinishReason.LENGTH}
    for completion in completions:
        assert (completion.token_ids[-1] == 2) is (completion.finish_reason is FinishReason.STOP)
        assert completion.finish_reason is FinishReason.STOP or len(completion.token_ids) == 120


def test_a_stop_text_ends_the_completion_and_stays_in_it(client):
    (free,) = generated(client, [PROMPTS[0]], max_new_tokens=40, ignore_eos=True)
    letter = next(c for c in free.text if c.isascii() and c.isalpha())
    (stopped,) = generated(client, [PROMPTS[0]], max_new_tokens=40, ignore_eos=True, stop=(letter,))
    assert stopped.finish_reason is FinishReason.STOP
    assert letter in stopped.text
    assert free.token_ids[: len(stopped.token_ids)] == stopped.token_ids


def test_the_summary_comes_last(server, client):
    request = pb.GenerateRequest(
        prompts=[pb.GeneratePrompt(prompt=common.Content(text="a"))] * 3,
        completions_per_prompt=2,
        sampling=pb.SamplingParams(max_new_tokens=5, ignore_eos=True),
    )
    with grpc.insecure_channel(server.target) as channel:
        events = list(PolicyServiceStub(channel).Generate(request, timeout=30))
    assert [event.WhichOneof("event") for event in events] == ["completion"] * 6 + ["summary"]
    summary = events[-1].summary
    assert (summary.completions, summary.tokens) == (6, 30)
    assert summary.tokenizer_digest == client.policy_info().tokenizer_digest
    assert summary.timings.compute_seconds > 0


def test_refuses_what_is_wrong(client):
    with pytest.raises(InvalidArgument, match="temperature is 0"):
        generated(client, temperature=0.0)
    with pytest.raises(InvalidArgument, match="sequence 0 needs"):
        client.compute_logprobs([((1,), ())], tokenizer_digest=client.policy_info().tokenizer_digest)
    with pytest.raises(FailedPrecondition, match="is expected"):
        next(client.generate(["a"], required_policy_version=PolicyVersion("run", 1, 1)))
    with pytest.raises(FailedPrecondition, match="is expected"):
        client.compute_logprobs(
            [((1,), (2,))],
            tokenizer_digest=client.policy_info().tokenizer_digest,
            required_policy_version=PolicyVersion("run", 1, 1),
        )


def test_publish_revert_and_resume(client, other):
    before = client.policy_info().policy_version
    specs, chunks, digest = weights_of(other)
    publisher = client.acquire_publisher("publish", 1)
    assert publisher.current == before
    version = PolicyVersion("publish", 1, 3, digest)
    staged = client.stage_weights(publisher.fencing_token, version, specs, chunks)
    assert (staged.digest, staged.lease) == (digest, 300.0)
    assert client.policy_info().policy_version == before  # staged is not served
    assert client.commit_weights(publisher.fencing_token, staged.staging_id, expected_current=before) == (
        version,
        before,
    )
    completions = generated(client)
    assert {completion.policy_versions[0].version for completion in completions} == {version}
    for completion in completions:
        assert completion.logprobs == pytest.approx(full_forward(other, completion), abs=1e-4)
    next(client.generate(["a"], required_policy_version=replace(version, digest="")))
    assert client.revert_weights(publisher.fencing_token, version) == before
    assert generated(client)[0].policy_versions[0].version == before

    staged = client.stage_weights(publisher.fencing_token, version, specs, chunks)
    client.commit_weights(publisher.fencing_token, staged.staging_id)
    with pytest.raises(FailedPrecondition, match="is older than"):
        client.stage_weights(publisher.fencing_token, replace(version, step=2), specs, chunks)
    resumed = client.acquire_publisher("publish", 2)
    assert resumed.fencing_token > publisher.fencing_token
    with pytest.raises(FailedPrecondition, match="does not hold"):
        client.revert_weights(publisher.fencing_token, version)
    with pytest.raises(FailedPrecondition, match="incarnation 2 of run publish was here"):
        client.acquire_publisher("publish", 1)
    older = PolicyVersion("publish", 2, 1, digest)
    staged = client.stage_weights(resumed.fencing_token, older, specs, chunks)
    assert client.commit_weights(resumed.fencing_token, staged.staging_id)[0] == older


def test_broken_streams_leave_nothing(server, client, other):
    before = client.policy_info().policy_version
    specs, chunks, digest = weights_of(other)
    token = client.acquire_publisher("broken", 1).fencing_token
    version = PolicyVersion("broken", 1, 1, digest)
    flipped = replace(chunks[0], data=bytes([chunks[0].data[0] ^ 1]) + chunks[0].data[1:])
    for sent, message in (
        ([flipped, *chunks[1:]], "announced SHA-256"),
        (chunks[:-1], "send the weights again"),
        ([chunks[0], *chunks], "without gaps"),
        ([*chunks, chunks[-1]], "nothing more is expected"),
        (list(reversed(chunks)), "without gaps"),
    ):
        with pytest.raises(InvalidArgument, match=message):
            client.stage_weights(token, version, specs, sent)
    with pytest.raises(InvalidArgument, match="digest"):
        client.stage_weights(token, replace(version, digest="0" * 64), specs, chunks)
    _abandon_stream(server.target, token, version, specs, chunks[0])
    assert client.policy_info().policy_version == before
    with pytest.raises(NotFound):
        client.commit_weights(token, "anything")
    staged = client.stage_weights(token, version, specs, chunks)
    client.abort_weights(token, staged.staging_id)
    with pytest.raises(NotFound, match="stage the weights again"):
        client.commit_weights(token, staged.staging_id)
    assert client.policy_info().policy_version == before


def _abandon_stream(target, token, version, specs, chunk):
    """Sends a manifest and one chunk, and cancels."""
    sent, cancelled = threading.Event(), threading.Event()

    def messages():
        tensors = [
            pb.TensorSpec(name=s.name, dtype=s.dtype, shape=s.shape, size_bytes=s.size_bytes, sha256=s.sha256)
            for s in specs
        ]
        named = pb.PolicyVersion(
            run_id=version.run_id, incarnation=version.incarnation, step=version.step, digest=version.digest
        )
        manifest = pb.WeightsManifest(fencing_token=token, version=named, kind=pb.WEIGHTS_KIND_FULL, tensors=tensors)
        yield pb.StageWeightsRequest(manifest=manifest)
        yield pb.StageWeightsRequest(
            chunk=pb.WeightsChunk(tensor_index=chunk.tensor_index, offset_bytes=chunk.offset_bytes, data=chunk.data)
        )
        sent.set()
        cancelled.wait(30)

    with grpc.insecure_channel(target) as channel:
        call = PolicyServiceStub(channel).StageWeights.future(messages(), timeout=30)
        assert sent.wait(30)
        call.cancel()
        cancelled.set()


def test_counts_what_happened(server, client):
    steps = client.policy_info().decode_steps
    generated(client, max_new_tokens=5, ignore_eos=True)
    assert client.policy_info().decode_steps == steps + 5
    with urllib.request.urlopen(f"http://{server.metrics_target}/metrics", timeout=10) as page:
        text = page.read().decode()
    for line in (
        f"palate_policy_decode_steps_total {steps + 5}.0",
        'palate_policy_completions_total{finish_reason="length"}',
        "palate_policy_queue_tokens 0.0",
        'grpc_server_handled_total{grpc_code="OK",grpc_method="Generate"',
    ):
        assert line in text


def test_a_frozen_policy_refuses_publishers(folder):
    with (
        start_server(MODULE, folder, "--frozen", "--engine", "fake") as running,
        PolicyClient(running.target) as client,
    ):
        info = client.policy_info()
        assert (info.frozen, info.engine) == (True, "fake")
        assert "publishing" not in info.capabilities
        with pytest.raises(FailedPrecondition, match="frozen"):
            client.acquire_publisher("run", 1)
        assert len(generated(client)) == 8
        assert running.stop() == 0


def run_module(*flags):
    command = [sys.executable, "-m", MODULE, "--port", "0", "--metrics-port", "0", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_help_teaches():
    result = run_module("--help")
    assert result.returncode == 0
    for word in ("--frozen", "--max-batch-rows", "--staging-lease-seconds", "PALATE_POLICY_"):
        assert word in result.stdout


def test_says_what_is_wrong_at_start(tmp_path):
    misspelt = run_module("--model", str(tmp_path), "--frozn")
    assert misspelt.returncode == 2
    assert "--frozen" in misspelt.stderr
    empty = run_module("--model", str(tmp_path))
    assert empty.returncode == 1
    assert "config.json" in empty.stderr
    reward = run_module("--model", str(make_tiny_reward(tmp_path / "reward", "decoder", seed=0)))
    assert reward.returncode == 1
    assert "is a reward model; serve it with `palate serve reward`" in reward.stderr
    assert "Traceback" not in empty.stderr + reward.stderr
