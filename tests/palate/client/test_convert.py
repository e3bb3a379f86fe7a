"""What goes through the wire comes back as it was."""

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from palate.client import (
    Failed,
    ItemErrorCode,
    ItemsFailed,
    Message,
    PolicyVersion,
    Priority,
    Provenance,
    SamplingParams,
    Scored,
    ScoreReply,
    Timings,
    TokenIds,
    Truncation,
    convert,
)
from palate.v1 import policy_service_pb2 as policy
from palate.v1 import reward_service_pb2 as reward

texts = st.text(max_size=30)


@given(texts)
def test_text_content(text):
    assert convert.content(text).text == text


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=4))
def test_conversations(pairs):
    message = convert.content([Message(role, content) for role, content in pairs])
    assert [(m.role, m.content) for m in message.conversation.messages] == pairs


def test_token_ids():
    message = convert.content(TokenIds((1, 2, 3), "digest"))
    assert (list(message.token_ids.ids), message.token_ids.tokenizer_digest) == ([1, 2, 3], "digest")


@pytest.mark.parametrize("truncation", Truncation)
@pytest.mark.parametrize("priority", Priority)
def test_every_option_has_its_number_in_the_contract(truncation, priority):
    options = convert.score_options("m", "r", truncation, priority)
    assert reward.Truncation.Name(options.truncation) == f"TRUNCATION_{truncation.value}"
    assert reward.Priority.Name(options.priority) == f"PRIORITY_{priority.value}"


def test_prompts_and_completions_must_pair_up():
    with pytest.raises(ValueError, match="2 prompts for 1 completions"):
        convert.score_request(["a", "b"], ["c"], reward.ScoreOptions())


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


def test_sampling_defaults_are_sent_as_they_are():
    message = convert.sampling_message(SamplingParams())
    assert (message.temperature, message.top_p, message.top_k, message.max_new_tokens) == (1.0, 1.0, 0, 64)


def test_seeds_are_one_per_prompt_or_none():
    request = convert.generate_request(["a", "b"], SamplingParams(), 1, [0, 7], None)
    assert [(prompt.HasField("seed"), prompt.seed) for prompt in request.prompts] == [(True, 0), (True, 7)]
    assert not convert.generate_request(["a"], SamplingParams(), 1, None, None).prompts[0].HasField("seed")
    with pytest.raises(ValueError, match="1 seeds for 2 prompts"):
        convert.generate_request(["a", "b"], SamplingParams(), 1, [1], None)


def test_finish_reasons():
    for name in ("STOP", "LENGTH"):
        message = policy.Completion(finish_reason=policy.FinishReason.Value(f"FINISH_REASON_{name}"))
        assert convert.completion(message).finish_reason == name
