"""What is put together by hand is what protobuf would have made."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.client import InvalidInput, WeightsChunk
from palate.client.policy_requests import chunk_requests
from palate.v1 import policy_service_pb2 as pb


@given(
    st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1), st.binary(max_size=300), st.sampled_from([1, 2**14, 2**21])
)
def test_a_chunk_is_sent_as_protobuf_would_send_it(index, offset, some, times):
    data = (some * times)[: 2**21]
    (raw,) = chunk_requests([WeightsChunk(index, offset, data)])
    sent = pb.StageWeightsRequest(chunk=pb.WeightsChunk(tensor_index=index, offset_bytes=offset, data=data))
    assert pb.StageWeightsRequest.FromString(raw) == sent
    assert not data or raw == sent.SerializeToString(deterministic=True)


@pytest.mark.parametrize("wrong", [WeightsChunk(-1, 0, b"a"), WeightsChunk(0, 2**64, b"a"), WeightsChunk(0, 0, "a")])
def test_a_chunk_that_cannot_be_sent_is_named(wrong):
    with pytest.raises(InvalidInput, match=r"chunks\[1\]"):
        list(chunk_requests([WeightsChunk(0, 0, b"a"), wrong]))
