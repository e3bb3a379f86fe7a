"""What is sent is what was given, and what cannot be sent is named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.client import (
    Aggregate,
    InvalidInput,
    MeanMinusVariance,
    Message,
    Priority,
    SamplingParams,
    TokenIds,
    Truncation,
)
from palate.client.content import content_message
from palate.client.policy_requests import generate_request, sampling_message
from palate.client.reward_requests import RewardRequests
from palate.v1 import reward_service_pb2 as reward

texts = st.text(max_size=30)


@given(texts)
def test_text_content(text):
    assert content_message(text, "prompt").text == text


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=4))
def test_conversations(pairs):
    message = content_message([Message(role, content) for role, content in pairs], "prompt")
    assert [(m.role, m.content) for m in message.conversation.messages] == pairs


def test_token_ids():
    message = content_message(TokenIds((1, 2, 3), "digest"), "prompt")
    assert (list(message.token_ids.ids), message.token_ids.tokenizer_digest) == ([1, 2, 3], "digest")


@pytest.mark.parametrize("truncation", Truncation)
@pytest.mark.parametrize("priority", Priority)
def test_every_option_has_its_number_in_the_contract(truncation, priority):
    options = RewardRequests("m", "r").options(truncation=truncation, priority=priority)
    assert reward.Truncation.Name(options.truncation) == f"TRUNCATION_{truncation.value}"
    assert reward.Priority.Name(options.priority) == f"PRIORITY_{priority.value}"


@pytest.mark.parametrize("aggregate", Aggregate)
def test_every_aggregate_has_its_number_in_the_contract(aggregate):
    options = RewardRequests("m", "r").options(aggregate=aggregate)
    assert reward.Aggregate.Name(options.aggregate) == f"AGGREGATE_{aggregate.value}"
    assert not options.HasField("variance_weight")


def test_a_weighted_variance_is_sent_even_where_it_is_0():
    options = RewardRequests("m", "r").options(aggregate=MeanMinusVariance(0.0), members=True)
    assert options.aggregate == reward.AGGREGATE_MEAN_MINUS_VARIANCE
    assert (options.HasField("variance_weight"), options.include_members) == (True, True)


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({}, ("m", "r")),
        ({"model": "other"}, ("other", "")),
        ({"model": "other", "revision": "s"}, ("other", "s")),
        ({"revision": "s"}, ("m", "s")),
    ],
)
def test_a_call_names_another_model_without_the_clients_revision(given, sent):
    options = RewardRequests("m", "r").options(**given)
    assert (options.model, options.revision) == sent


def test_prompts_and_completions_must_pair_up():
    with pytest.raises(InvalidInput, match="2 prompts for 1 completions"):
        RewardRequests("", "").score(["a", "b"], ["c"])


def test_sampling_defaults_are_sent_as_they_are():
    message = sampling_message(SamplingParams())
    assert (message.temperature, message.top_p, message.top_k, message.max_new_tokens) == (1.0, 1.0, 0, 64)


def test_seeds_are_one_per_prompt_or_none():
    request = generate_request(["a", "b"], SamplingParams(), 1, [0, 7], None)
    assert [(prompt.HasField("seed"), prompt.seed) for prompt in request.prompts] == [(True, 0), (True, 7)]
    assert not generate_request(["a"], SamplingParams(), 1, None, None).prompts[0].HasField("seed")
    with pytest.raises(InvalidInput, match="1 seeds for 2 prompts"):
        generate_request(["a", "b"], SamplingParams(), 1, [1], None)
