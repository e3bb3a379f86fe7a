"""Token by token, interrupted, cancelled: the policy server as a process of its own, with a real model."""

from dataclasses import replace

import pytest
from transformers import AutoModelForCausalLM

from palate.client import (
    AsyncPolicyClient,
    DeadlineExceeded,
    GeneratedCompletion,
    PolicyClient,
    SamplingParams,
    TokenChunk,
)
from tests.policies import full_forward, publish
from tests.servers import start_server
from tests.tiny_models import make_tiny_policy

PROMPTS = [f"{word} time there was" for word in ("Once upon a", "One", "In the", "What", "A long", "This", "No", "An")]

LONG = SamplingParams(max_new_tokens=200, ignore_eos=True)
"""Takes seconds with many rows."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return [make_tiny_policy(tmp_path_factory.mktemp(f"seed-{seed}"), seed=seed) for seed in (0, 1)]


@pytest.fixture(scope="module")
def server(folders):
    with start_server("services.policy", folders[0], "--threads", "1", "--max-batch-rows", "256") as running:
        yield running


@pytest.fixture
def client(server):
    with PolicyClient(server.target, timeout=120) as connected:
        yield connected


def by_completion(events):
    """Chunks and completion of every (prompt, completion index); chunks only before their completion."""
    chunks, completions = {}, {}
    for event in events:
        place = (event.prompt_index, event.completion_index)
        assert place not in completions
        if isinstance(event, TokenChunk):
            chunks.setdefault(place, []).append(event)
        else:
            completions[place] = event
    return chunks, completions


def assert_streamed(events, expected):
    """The events are those completions, each told in chunks before."""
    chunks, completions = by_completion(events)
    assert completions == {(c.prompt_index, c.completion_index): c for c in expected}
    for place, completion in completions.items():
        begins = [chunk.first_token for chunk in chunks[place]]
        sizes = [len(chunk.token_ids) for chunk in chunks[place]]
        assert begins == [sum(sizes[:index]) for index in range(len(sizes))]
        assert tuple(token for chunk in chunks[place] for token in chunk.token_ids) == completion.token_ids
        assert tuple(logprob for chunk in chunks[place] for logprob in chunk.logprobs) == completion.logprobs
        assert "".join(chunk.text for chunk in chunks[place]) == completion.text


def test_the_chunks_are_the_completions(client):
    # A random model writes bytes that are no characters, characters in several pieces, and special tokens.
    call = {"sampling": SamplingParams(1.3, max_new_tokens=60), "completions_per_prompt": 3, "seeds": range(8)}
    expected = list(client.generate(PROMPTS, **call))
    assert_streamed(client.generate_tokens(PROMPTS, **call), expected)
    assert "stream_tokens" in client.policy_info().capabilities


async def test_the_asynchronous_client_says_the_same(server):
    async with AsyncPolicyClient(server.target) as client:
        call = {"sampling": SamplingParams(max_new_tokens=20), "seeds": range(8)}
        expected = [completion async for completion in client.generate(PROMPTS, **call)]
        assert_streamed([event async for event in client.generate_tokens(PROMPTS, **call)], expected)


def test_one_reader_of_one_completion_gets_a_chunk_for_most_tokens(client):
    for _ in range(20):  # a reader that was slow for a moment got some joined
        events = list(client.generate_tokens(PROMPTS[:1], sampling=LONG))
        assert isinstance(events[-1], GeneratedCompletion)
        if len(events) > 20:
            return
    pytest.fail(f"{len(events)} events for 200 tokens, twenty times")


def test_interrupted_completions_say_which_weights_drew_what(client, folders):
    models = [AutoModelForCausalLM.from_pretrained(folder).eval() for folder in folders]
    weights = {client.policy_info().policy_version: models[0]}
    stream = client.generate_tokens(PROMPTS * 32, sampling=LONG, completions_per_prompt=2)
    next(stream)
    for step in range(1, 4):  # while the first rows are drawn
        weights[publish(client, models[step % 2], "interrupt", step, interrupt=True)] = models[step % 2]
    completions = [event for event in stream if isinstance(event, GeneratedCompletion)]
    assert len(completions) == 2 * 256
    interrupted = [completion for completion in completions if len(completion.policy_versions) > 1]
    assert interrupted
    worst = 0.0
    for completion in (*interrupted[:40], *completions[-8:]):
        places = [span.first_token for span in completion.policy_versions]
        assert places[0] == 0
        assert places == sorted(set(places))
        for span, end in zip(completion.policy_versions, [*places[1:], None], strict=True):
            drawn = slice(span.first_token, end)
            expected = full_forward(weights[span.version], completion)[drawn]
            assert completion.logprobs[drawn] == pytest.approx(expected, abs=1e-4)
            worst = max(worst, *(abs(a - b) for a, b in zip(completion.logprobs[drawn], expected, strict=True)))
    print(f"{len(interrupted)} interrupted completions; largest difference to a full forward: {worst:.1e}")


def test_without_interrupt_completions_finish_on_their_weights(client, folders):
    model = AutoModelForCausalLM.from_pretrained(folders[1]).eval()
    before = client.policy_info().policy_version
    stream = client.generate_tokens(PROMPTS * 32, sampling=LONG)
    next(stream)
    after = publish(client, model, "patient", 1)
    completions = [event for event in stream if isinstance(event, GeneratedCompletion)]
    assert {len(completion.policy_versions) for completion in completions} == {1}
    assert {completion.policy_versions[0].version for completion in completions} <= {before, after}


@pytest.mark.parametrize("tokens", [False, True])
def test_leaving_the_loop_stops_the_engine_within_one_step(client, tokens):
    method = client.generate_tokens if tokens else client.generate
    # A stop text lets some completions end early, so that there is something to read.
    sampling = LONG if tokens else replace(LONG, stop=("e",))
    stream = method(PROMPTS * 32, sampling=sampling, completions_per_prompt=8, seeds=range(256))
    next(stream)
    stream.close()
    assert_engine_is_free(client)


@pytest.mark.parametrize("tokens", [False, True])
def test_a_deadline_stops_the_engine_within_one_step(client, tokens):
    method = client.generate_tokens if tokens else client.generate
    with pytest.raises(DeadlineExceeded):
        list(method(PROMPTS * 32, sampling=LONG, completions_per_prompt=8, timeout=0.5))
    assert_engine_is_free(client)


def assert_engine_is_free(client):
    """At most the step that was under way is still counted; 8 batches of 200 steps were asked for."""
    seen = client.policy_info().decode_steps
    list(client.generate(["a"], sampling=SamplingParams(max_new_tokens=1)))  # waits until the engine is free
    more = client.policy_info().decode_steps - seen - 1
    print(f"{more} steps after the call was left")
    assert more <= 1
