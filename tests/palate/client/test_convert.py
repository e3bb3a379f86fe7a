"""What goes through the wire comes back as it was."""

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from palate.client import (
    Failed,
    ItemErrorCode,
    ItemsFailed,
    PolicyVersion,
    Provenance,
    Scored,
    ScoreReply,
    Timings,
    convert,
)
from palate.v1 import policy_service_pb2 as policy
from palate.v1 import reward_service_pb2 as reward

texts = st.text(max_size=30)


@pytest.mark.parametrize("code", ItemErrorCode)
def test_item_errors(code):
    number = reward.ItemErrorCode.Value(f"ITEM_ERROR_CODE_{code.value}")
    message = reward.ItemError(code=number, message="m", retryable=True, retry_after=Duration(seconds=2))
    assert convert.failed(message) == Failed(code, "m", True, 2.0)


def test_a_result_that_is_neither_score_nor_error_is_an_error():
    assert isinstance(convert.score_result(reward.ScoreResult()), Failed)


def test_an_error_code_of_a_newer_server_is_still_an_error():
    assert convert.failed(reward.ItemError(code=99)).code is ItemErrorCode.FAILED


def test_absent_numbers_stay_absent():
    assert convert.scored(reward.Scored(score=0.0)) == Scored(0.0, None, 0, 0)
    assert convert.scored(reward.Scored(score=0.0, calibrated=0.0)).calibrated == 0.0
    assert convert.scored(reward.Scored(score=0.0, std=0.0, members=[0.0, 0.0])) == Scored(
        0.0, None, 0, 0, 0.0, (0.0, 0.0)
    )


def test_scores_raise_where_an_item_has_none():
    reply = ScoreReply(
        (Scored(1.0, None, 3, 0), Failed(ItemErrorCode.TOO_LONG, "cut it", False, None)),
        Provenance("m", "r", "onnx", "float32"),
        Timings(0.0, 0.0, 0.0),
    )
    with pytest.raises(ItemsFailed, match="item 1: TOO_LONG: cut it") as caught:
        reply.scores()
    assert list(caught.value.failures) == [1]


@given(texts, st.integers(0, 2**63), st.integers(0, 2**63), texts)
def test_policy_versions(run_id, incarnation, step, digest):
    version = PolicyVersion(run_id, incarnation, step, digest)
    assert convert.policy_version(convert.policy_version_message(version)) == version


def test_finish_reasons():
    for name in ("STOP", "LENGTH"):
        message = policy.Completion(finish_reason=policy.FinishReason.Value(f"FINISH_REASON_{name}"))
        assert convert.completion(message).finish_reason == name
