"""The codec: round trips, and whatever bytes may come instead of tensors."""

import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.oip.messages import message
from services.reward.oip.tensors import add_output, pack_bytes, raw_contents, read_values, unpack_bytes
from services.runtime.errors import InvalidRequest
from tests.oip_client import infer_request, packed

INT64 = st.integers(-(2**63), 2**63 - 1)


def tensor_of(datatype, shape, **contents):
    return message("ModelInferRequest").InferInputTensor(name="X", datatype=datatype, shape=shape, contents=contents)


@given(st.lists(st.binary(max_size=30), max_size=20))
def test_bytes_round_trip(elements):
    assert unpack_bytes(pack_bytes(elements), len(elements), "X") == elements
    assert pack_bytes(elements) == packed(elements)
    assert read_values(tensor_of("BYTES", [len(elements), 1]), packed(elements)) == elements
    assert read_values(tensor_of("BYTES", [len(elements)], bytes_contents=elements), None) == elements


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=5), st.data())
def test_every_other_number_of_elements_is_refused(elements, data):
    count = data.draw(st.integers(0, 10).filter(lambda count: count != len(elements)))
    with pytest.raises(InvalidRequest, match="'X'"):
        unpack_bytes(packed(elements), count, "X")


@given(st.binary(max_size=200), st.integers(0, 50))
def test_garbage_is_read_whole_or_refused(raw, count):
    try:
        elements = unpack_bytes(raw, count, "X")
    except InvalidRequest:
        return
    assert pack_bytes(elements) == raw


@given(st.binary(max_size=200), st.lists(st.integers(0, 2**62), max_size=3), st.sampled_from(["BYTES", "INT64"]))
def test_garbage_of_any_shape_is_read_or_refused(raw, shape, datatype):
    try:
        values = read_values(tensor_of(datatype, shape), raw)
    except InvalidRequest:
        return
    assert len(values) == np.prod(np.array(shape, object))


@pytest.mark.parametrize(("length", "count"), [(0xFFFFFFFF, 1), (0x7FFFFFFF, 1), (0, 2**62)])
def test_a_hostile_prefix_or_count_allocates_nothing(length, count):
    raw = struct.pack("<I", length) + b"abc"
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequest):
            unpack_bytes(raw, count, "X")
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@given(st.lists(INT64, max_size=20))
def test_integers_are_the_same_raw_and_typed(values):
    raw = read_values(tensor_of("INT64", [len(values)]), struct.pack(f"<{len(values)}q", *values))
    typed = read_values(tensor_of("INT64", [len(values)], int64_contents=values), None)
    assert raw.tolist() == typed.tolist() == values


@pytest.mark.parametrize(
    ("tensor", "raw"),
    [
        (tensor_of("INT64", [2, 2]), b"\0" * 31),
        (tensor_of("INT64", [2, 2]), b"\0" * 40),
        (tensor_of("INT64", [2], int64_contents=[1]), None),
        (tensor_of("INT64", [1], int_contents=[1]), None),
        (tensor_of("INT64", [1], int64_contents=[1], bytes_contents=[b"1"]), None),
        (tensor_of("BYTES", [2], bytes_contents=[b"1"]), None),
        (tensor_of("BYTES", [1], int64_contents=[1]), None),
    ],
)
def test_contents_that_do_not_fit_are_refused_by_name(tensor, raw):
    with pytest.raises(InvalidRequest, match="'X'"):
        read_values(tensor, raw)


def test_raw_and_typed_contents_do_not_mix():
    bare = {"name": "A", "datatype": "BYTES", "shape": [1]}
    assert raw_contents(infer_request(bare, bare, raw=[b"a", b"b"])) == [b"a", b"b"]
    assert raw_contents(infer_request(bare)) == [None]
    with pytest.raises(InvalidRequest, match="1 entries for 2 inputs"):
        raw_contents(infer_request(bare, bare, raw=[b"a"]))
    with pytest.raises(InvalidRequest, match="'A' has contents beside"):
        raw_contents(infer_request({**bare, "contents": {"bytes_contents": [b"a"]}}, raw=[b"a"]))


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=9))
def test_outputs_say_the_same_raw_and_typed(values):
    typed, raw = message("ModelInferResponse")(), message("ModelInferResponse")()
    for response, is_raw in ((typed, False), (raw, True)):
        add_output(response, "REWARD", "FP32", np.array(values), raw=is_raw)
        add_output(response, "OK", "BOOL", np.array(values) > 0, raw=is_raw)
        add_output(response, "TEXT", "BYTES", [b"t"] * len(values), raw=is_raw)
        assert [list(output.shape) for output in response.outputs] == [[len(values), 1]] * 3
    assert list(typed.outputs[0].contents.fp32_contents) == values
    assert np.frombuffer(raw.raw_output_contents[0], "<f4").tolist() == values
    assert np.frombuffer(raw.raw_output_contents[1], "?").tolist() == list(typed.outputs[1].contents.bool_contents)
    assert unpack_bytes(raw.raw_output_contents[2], len(values), "TEXT") == list(
        typed.outputs[2].contents.bytes_contents
    )
    assert not typed.raw_output_contents
