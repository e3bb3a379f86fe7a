"""Weights that are cut and put together again: `weights` and `assembly`, whose tests are each other's."""

import hashlib
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from palate.models.assembly import DeltaOf, WeightsAssembler, WeightsLimits
from palate.models.folder import ModelFolder, tensor_sha256
from palate.models.weights import (
    Chunk,
    WeightsError,
    changed_positions,
    describe_tensors,
    encode_changes,
    iter_chunks,
    sent_bytes,
    untied_state_dict,
    weights_digest,
)
from tests.tiny_models import make_tiny_policy

LIMITS = WeightsLimits(max_tensors=100, max_bytes=1 << 20, max_chunk_bytes=64)


def some_state():
    generator = torch.Generator().manual_seed(0)
    return {
        "wide": torch.randn(5, 7, generator=generator),
        "transposed": torch.randn(4, 6, generator=generator).T,
        "half": torch.randn(9, generator=generator).bfloat16(),
        "steps": torch.tensor(3),
        "empty": torch.zeros(0, 4),
        "flags": torch.tensor([True, False, True]),
        "last": torch.tensor([-0.0, 1e-45]),
    }


def assembled(entries, chunks, limits=LIMITS):
    assembler = WeightsAssembler(entries, limits)
    for chunk in chunks:
        assembler.add(chunk)
    return assembler.finish()


@pytest.mark.parametrize("chunk_bytes", [1, 3, 64])
def test_every_bit_arrives(chunk_bytes):
    state = some_state()
    entries = describe_tensors(state)
    arrived = assembled(entries, iter_chunks(state, entries, chunk_bytes))
    assert list(arrived) == list(state)
    for name, tensor in state.items():
        assert arrived[name].dtype == tensor.dtype
        assert arrived[name].shape == tensor.shape
    assert describe_tensors(arrived) == entries


def test_digest_names_what_is_in_the_tensors_and_not_their_order():
    entries = describe_tensors(some_state())
    digest = weights_digest(entries)
    assert weights_digest(reversed(entries)) == digest
    for changed in (
        replace(entries[0], sha256="0" * 64),
        replace(entries[0], name="other"),
        replace(entries[0], dtype="I32"),
        replace(entries[0], shape=(7, 5)),
    ):
        assert weights_digest([changed, *entries[1:]]) != digest


def test_bytes_are_those_of_a_safetensors_file(tmp_path):
    folder = make_tiny_policy(tmp_path, seed=0, dtype=torch.bfloat16)
    stored = ModelFolder(folder).tensors
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    entries = describe_tensors(untied_state_dict(model))
    assert {entry.name: entry.sha256 for entry in entries} == {
        name: tensor_sha256(tensor) for name, tensor in stored.items()
    }
    assert {(entry.dtype, entry.shape) for entry in entries} == {(t.dtype, t.shape) for t in stored.values()}


@pytest.mark.parametrize("tied", [True, False])
def test_tied_tensors_travel_once(tmp_path, tied):
    model = AutoModelForCausalLM.from_pretrained(make_tiny_policy(tmp_path, seed=0, tied=tied))
    assert ("lm_head.weight" in untied_state_dict(model)) is not tied
    assert "model.embed_tokens.weight" in untied_state_dict(model)


@given(st.data())
@settings(max_examples=150)
def test_no_broken_stream_becomes_weights(data):
    state = some_state()
    entries = describe_tensors(state)
    chunks = list(iter_chunks(state, entries, 32))
    place = data.draw(st.integers(0, len(chunks) - 1))
    damage = data.draw(st.sampled_from(["flip", "drop", "repeat", "swap", "shift", "shorten", "lengthen", "end"]))
    broken = list(chunks)
    victim = chunks[place]
    if damage == "flip":
        position = data.draw(st.integers(0, len(victim.data) - 1))
        flipped = bytearray(victim.data)
        flipped[position] ^= 1 << data.draw(st.integers(0, 7))
        broken[place] = replace(victim, data=bytes(flipped))
    elif damage == "drop":
        del broken[place]
    elif damage == "repeat":
        broken.insert(place, victim)
    elif damage == "swap":
        other = (place + 1) % len(chunks)
        broken[place], broken[other] = broken[other], broken[place]
    elif damage == "shift":
        broken[place] = replace(victim, offset_bytes=victim.offset_bytes + data.draw(st.sampled_from([-1, 1, 1 << 40])))
    elif damage == "shorten":
        broken[place] = replace(victim, data=victim.data[:-1])
    elif damage == "lengthen":
        broken[place] = replace(victim, data=victim.data + b"\0")
    else:
        broken = broken[:place]
    with pytest.raises(WeightsError):
        assembled(entries, broken)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_must_be_finite(value):
    state = {"w": torch.tensor([1.0, value])}
    entries = describe_tensors(state)
    with pytest.raises(WeightsError, match="w holds NaN or infinity"):
        assembled(entries, iter_chunks(state, entries, 64))


def test_refuses_what_is_over_its_limits():
    entries = describe_tensors(some_state())
    with pytest.raises(WeightsError, match="at most 2 are taken"):
        WeightsAssembler(entries, WeightsLimits(max_tensors=2, max_bytes=1 << 20))
    with pytest.raises(WeightsError, match="at most 10 are taken"):
        WeightsAssembler(entries, WeightsLimits(max_tensors=100, max_bytes=10))
    with pytest.raises(WeightsError, match="1 to 64 bytes, this one 65"):
        WeightsAssembler(entries, LIMITS).add(Chunk(0, 0, bytes(65)))
    with pytest.raises(WeightsError, match="this one 0"):
        WeightsAssembler(entries, LIMITS).add(Chunk(0, 0, b""))


def test_refuses_an_announcement_that_contradicts_itself():
    entry = describe_tensors({"w": torch.zeros(3)})[0]
    for wrong, message in (
        ([entry, entry], "announced twice"),
        ([replace(entry, size_bytes=13)], "announced with 13 bytes"),
        ([replace(entry, dtype="F8")], "has type F8"),
        ([replace(entry, shape=(-3,), size_bytes=-12)], "announced with"),
    ):
        with pytest.raises(WeightsError, match=message):
            WeightsAssembler(wrong, LIMITS)


def test_says_which_tensor_is_missing():
    state = {"first": torch.zeros(2), "second": torch.zeros(2)}
    entries = describe_tensors(state)
    with pytest.raises(WeightsError, match="byte 0 of 8 of second"):
        assembled(entries, [Chunk(0, 0, bytes(8))])


def test_refuses_formats_that_cannot_be_sent():
    with pytest.raises(WeightsError, match="complex64"):
        describe_tensors({"w": torch.zeros(2, dtype=torch.complex64)})


def test_digest_does_not_change_between_releases():
    entries = describe_tensors({"b": torch.tensor([1.0, 2.0]), "a": torch.tensor([[3]], dtype=torch.uint8)})
    lines = "a\nU8\n[1, 1]\n" + hashlib.sha256(b"\x03").hexdigest() + "\n"
    lines += "b\nF32\n[2]\n" + hashlib.sha256(bytes.fromhex("0000803f00000040")).hexdigest() + "\n"
    assert weights_digest(entries) == hashlib.sha256(lines.encode()).hexdigest()


@given(
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.uint8]),
    shape=st.sampled_from([(), (1,), (7,), (3, 5), (2, 0)]),
    seed=st.integers(0, 2**31),
    share=st.floats(0, 1),
    chunk=st.integers(1, 64),
)
@settings(max_examples=200)
def test_changes_make_the_same_bits_and_leave_the_base_alone(dtype, shape, seed, share, chunk):
    generator = torch.Generator().manual_seed(seed)
    base = (torch.randn(shape, generator=generator) * 100).to(dtype)
    other = (torch.randn(shape, generator=generator) * 100).to(dtype)
    tensor = torch.where(torch.rand(shape, generator=generator) < share, other, base)
    before, (entry,) = base.clone(), describe_tensors({"w": tensor})
    positions = changed_positions(tensor, base)
    delta = DeltaOf({"w": base}, (len(positions),))
    if sent_bytes(entry, len(positions)) > entry.size_bytes:
        with pytest.raises(WeightsError, match="send it whole"):
            WeightsAssembler([entry], LIMITS, delta)
        return
    data = encode_changes(tensor, positions)
    assert len(data) == sent_bytes(entry, len(positions))
    assembler = WeightsAssembler([entry], LIMITS, delta)
    for offset in range(0, len(data), chunk):
        assembler.add(Chunk(0, offset, data[offset : offset + chunk]))
    assert torch.equal(assembler.finish()["w"], tensor)
    assert torch.equal(base, before)


def test_a_change_of_sign_of_zero_is_a_change():
    positions = changed_positions(torch.tensor([0.0, -0.0, 1.0]), torch.tensor([0.0, 0.0, 1.0]))
    assert positions.tolist() == [1]


def test_refuses_changes_of_a_tensor_that_is_not_there():
    with pytest.raises(WeightsError, match="w is not in the weights"):
        WeightsAssembler(describe_tensors({"w": torch.zeros(9)}), LIMITS, DeltaOf({}, (1,)))
