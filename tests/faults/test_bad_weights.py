"""Everything wrong with published weights: each a clear error, nothing else served, and a server that goes on."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from palate.client import FailedPrecondition, InvalidArgument, InvalidInput, PolicyVersion, TensorSpec, WeightsChunk
from palate.models.adapters import factor_names, merged_tensors
from palate.models.weights import describe_tensors, iter_chunks, untied_state_dict, weights_digest
from tests.policies import digest_of, weights_of
from tests.tiny_models import make_tiny_policy

NAN, INFINITY = float("nan"), float("inf")


def flipped(chunk):
    return replace(chunk, data=bytes([chunk.data[0] ^ 0x10]) + chunk.data[1:])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda chunks: chunks[:-1], "send the weights again"),
        (lambda chunks: [*chunks[:-1], replace(chunks[-1], data=chunks[-1].data[:-4])], "send the weights again"),
        (lambda chunks: [], "send the weights again"),
        (lambda chunks: chunks[::-1], "chunks come in order"),
        (lambda chunks: [chunks[1], chunks[0], *chunks[2:]], "chunks come in order"),
        (lambda chunks: [chunks[0], *chunks], "chunks come in order"),
        (lambda chunks: [*chunks, chunks[-1]], "nothing more is expected"),
        (lambda chunks: [flipped(chunks[0]), *chunks[1:]], "announced SHA-256"),
        (lambda chunks: [replace(chunks[0], data=b""), *chunks], "a chunk has 1 to"),
        (lambda chunks: [replace(chunks[0], data=b"\0" * (2**20 + 1)), *chunks], "a chunk has 1 to"),
        (lambda chunks: [replace(chunks[0], data=chunks[0].data * 9), *chunks[1:]], "past its end"),
        (lambda chunks: [replace(chunks[0], tensor_index=2**32 - 1), *chunks], "chunks come in order"),
        (lambda chunks: [replace(chunks[0], offset_bytes=2**63), *chunks], "chunks come in order"),
    ],
    ids=["truncated", "truncated-inside", "no-chunks", "reversed", "reordered", "duplicated", "one-more",
         "flipped-byte", "empty-chunk", "large-chunk", "past-the-end", "index", "offset"],
)  # fmt: skip
def test_weights_that_arrive_broken(client, other, spoil, message):
    specs, chunks, digest = weights_of(other)
    token = client.acquire_publisher("broken", 1).fencing_token
    with pytest.raises(InvalidArgument, match=message):
        client.stage_weights(token, PolicyVersion("broken", 1, 1, digest), specs, spoil(chunks))


def test_weights_that_cannot_be_read_or_sent(client, other):
    """What the caller's own iterator raises comes back to the caller, and the server forgets what it had."""
    specs, chunks, digest = weights_of(other)
    token = client.acquire_publisher("unread", 1).fencing_token
    version = PolicyVersion("unread", 1, 1, digest)

    def broken():
        yield chunks[0]
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        client.stage_weights(token, version, specs, broken())
    with pytest.raises(InvalidInput, match=r"chunks\[1\]\.offset_bytes is -1; give a whole number"):
        client.stage_weights(token, version, specs, [chunks[0], replace(chunks[1], offset_bytes=-1)])
    assert client.stage_weights(token, version, specs, chunks).digest == digest


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: replace(s, shape=s.shape[::-1]), "the model serves F32 of shape"),
        (lambda s: replace(s, shape=(*s.shape, 1)), "the model serves F32 of shape"),
        (lambda s: replace(s, shape=(2**63, 2**63)), "the model serves F32 of shape"),
        (lambda s: replace(s, dtype="BF16", size_bytes=s.size_bytes // 2), "is announced as BF16"),
        (lambda s: replace(s, dtype="F99"), "is announced as F99"),
        (lambda s: replace(s, name="no.such.tensor"), "not announced"),
        (lambda s: replace(s, size_bytes=s.size_bytes + 4), "bytes"),
        (lambda s: replace(s, size_bytes=2**63), "bytes"),
        (lambda s: replace(s, sha256="no digest"), "SHA-256"),
    ],
    ids=["shape", "rank", "huge-shape", "dtype", "unknown-dtype", "name", "size", "huge-size", "sha"],
)
def test_weights_that_are_not_the_models(client, other, spoil, message):
    specs, chunks, _ = weights_of(other)
    place = next(index for index, spec in enumerate(specs) if len(set(spec.shape)) > 1)
    wrong = [*specs[:place], spoil(specs[place]), *specs[place + 1 :]]
    token = client.acquire_publisher("foreign", 1).fencing_token
    with pytest.raises(InvalidArgument, match=message):
        client.stage_weights(token, PolicyVersion("foreign", 1, 1, digest_of(wrong)), wrong, chunks)


def test_weights_announced_twice_or_too_few(client, other):
    specs, chunks, digest = weights_of(other)
    token = client.acquire_publisher("announced", 1).fencing_token
    for wrong, message in (
        ([*specs, specs[0]], "twice|more than once|tensors"),
        (specs[1:], "not announced"),
        ([], "not announced"),
    ):
        with pytest.raises(InvalidArgument, match=message):
            client.stage_weights(token, PolicyVersion("announced", 1, 1, digest_of(wrong)), wrong, chunks)
    with pytest.raises(InvalidArgument, match="the version's digest is"):
        client.stage_weights(token, PolicyVersion("announced", 1, 1, digest[::-1]), specs, chunks)


@pytest.mark.parametrize("value", [NAN, INFINITY, -INFINITY])
def test_weights_that_are_no_numbers(client, tmp_path, value):
    model = AutoModelForCausalLM.from_pretrained(make_tiny_policy(tmp_path, seed=1))
    with torch.no_grad():
        model.get_parameter("model.norm.weight")[3] = value
    specs, chunks, digest = weights_of(model)
    token = client.acquire_publisher("nan", 1).fencing_token
    with pytest.raises(InvalidArgument, match=r"model\.norm\.weight holds NaN or infinity"):
        client.stage_weights(token, PolicyVersion("nan", 1, 1, digest), specs, chunks)


def test_weights_of_a_lower_incarnation(client, other):
    specs, chunks, digest = weights_of(other)
    token = client.acquire_publisher("twice started", 2).fencing_token
    with pytest.raises(FailedPrecondition, match="incarnation 2 of run twice started was here"):
        client.acquire_publisher("twice started", 1)
    with pytest.raises(FailedPrecondition, match="cannot publish twice started/1/9"):
        client.stage_weights(token, PolicyVersion("twice started", 1, 9, digest), specs, chunks)


TARGET = "model.layers.1.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def adapter(folder):
    """An adapter of one layer: what is announced of it, its chunks, its base, and the digest of what it makes."""
    base = untied_state_dict(AutoModelForCausalLM.from_pretrained(folder))
    generator = torch.Generator().manual_seed(3)
    shapes = ((2, 32), (32, 2))
    factors = {n: torch.randn(s, generator=generator) for n, s in zip(factor_names(TARGET), shapes, strict=True)}
    entries = describe_tensors(factors)
    specs = [TensorSpec(e.name, e.dtype, e.shape, e.size_bytes, e.sha256) for e in entries]
    chunks = [WeightsChunk(c.tensor_index, c.offset_bytes, c.data) for c in iter_chunks(factors, entries, 64)]
    digest = weights_digest(describe_tensors({**base, **merged_tensors(base, factors, [TARGET], 2.0)}))
    return specs, chunks, PolicyVersion(digest=weights_digest(describe_tensors(base))), digest


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        ({"chunks": lambda c: c[:-1]}, InvalidArgument, "send the weights again"),
        ({"chunks": lambda c: [*c, c[-1]]}, InvalidArgument, "nothing more is expected"),
        ({"chunks": lambda c: [flipped(c[0]), *c[1:]]}, InvalidArgument, "announced SHA-256"),
        ({"chunks": lambda c: [c[0], *c]}, InvalidArgument, "chunks come in order"),
        ({"specs": lambda s: s[:1]}, InvalidArgument, "come in pairs"),
        ({"specs": lambda s: [*s, *s]}, InvalidArgument, "announced twice"),
        ({"specs": lambda s: s[::-1]}, InvalidArgument, "are no pair"),
        ({"specs": lambda s: [replace(one, shape=(*one.shape, 1)) for one in s]}, InvalidArgument, "of rank r it is"),
        (
            {"specs": lambda s: [replace(one, name=one.name.replace("q", "z")) for one in s]},
            InvalidArgument,
            "not have",
        ),
        ({"base": lambda b: PolicyVersion(digest="0" * 64)}, FailedPrecondition, "this server started with"),
        ({"base": lambda b: None}, InvalidArgument, "an adapter needs base"),
        ({"scale": lambda s: NAN}, InvalidArgument, "lora_scale"),
        ({"scale": lambda s: s / 2}, InvalidArgument, "the adapters make weights of digest"),
        ({"scale": lambda s: 1e300}, InvalidArgument, "holds NaN or infinity with its adapter"),
        ({"digest": lambda d: d[::-1]}, InvalidArgument, "the adapters make weights of digest"),
    ],
)
def test_adapters_that_are_broken_or_of_another_model(client, adapter, spoil, error, message):
    parts = dict(zip(("specs", "chunks", "base", "digest"), adapter, strict=True)) | {"scale": 2.0}
    wrong = parts | {name: change(parts[name]) for name, change in spoil.items()}
    token = client.acquire_publisher("broken adapters", 1).fencing_token

    def stage(specs, chunks, base, digest, scale):
        version = PolicyVersion("broken adapters", 1, 1, digest)
        return client.stage_weights(token, version, specs, chunks, base=base, lora_scale=scale)

    with pytest.raises(error, match=message):
        stage(**wrong)
    assert stage(**parts).digest == parts["digest"]


@pytest.mark.parametrize("token", [0, 1, 2**64 - 1])
def test_weights_without_the_fencing_token(client, other, token):
    specs, chunks, digest = weights_of(other)
    held = client.acquire_publisher("holder", 1).fencing_token
    version = PolicyVersion("holder", 1, 1, digest)
    staged = client.stage_weights(held, version, specs, chunks)
    for refused_call in (
        lambda: client.stage_weights(token, version, specs, chunks),
        lambda: client.commit_weights(token, staged.staging_id),
        lambda: client.commit_weights(token, staged.staging_id, interrupt=True),
        lambda: client.revert_weights(token, version),
        lambda: client.abort_weights(token, staged.staging_id),
    ):
        with pytest.raises(FailedPrecondition, match=f"fencing token {token} does not hold"):
            refused_call()
    client.abort_weights(held, staged.staging_id)
