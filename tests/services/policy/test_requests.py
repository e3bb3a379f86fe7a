import pytest

from palate.client import Message, PolicyVersion, SamplingParams, TokenIds
from palate.client.policy_requests import generate_request, logprobs_request
from palate.models.adapters import AddedTo
from palate.models.manifest import load_manifest
from palate.models.rendering import Renderer
from palate.v1 import common_pb2 as common
from palate.v1 import policy_service_pb2 as pb
from services.policy.requests import Limits, generate_call, logprobs_call, manifest_relation, weights_chunk
from services.runtime.errors import InvalidRequest, TooLarge, WrongPin
from tests.tiny_models import make_tiny_policy

LIMITS = Limits(max_tokens=64, max_prompts=4, max_completions=6, max_reply_bytes=1000, vocab_size=320)


def renderer_of(folder):
    return Renderer.from_folder(folder, load_manifest(folder).manifest)


@pytest.fixture(scope="module")
def renderer(tmp_path_factory):
    return renderer_of(make_tiny_policy(tmp_path_factory.mktemp("plain"), seed=0))


@pytest.fixture(scope="module")
def chat_renderer(tmp_path_factory):
    return renderer_of(make_tiny_policy(tmp_path_factory.mktemp("chat"), seed=0, chat=True))


def request(prompts=("Hello",), completions=1, seeds=None, required=None, **sampling):
    return generate_request(prompts, SamplingParams(**{"max_new_tokens": 8, **sampling}), completions, seeds, required)


def test_reads_a_whole_request(renderer):
    pin = PolicyVersion("run", 1, 2, "d")
    wanted = request(["Hello", "a"], 3, [5, 2**64 - 1], pin, temperature=0.5, top_k=7, top_p=0.9, stop=("x",))
    call = generate_call(wanted, renderer, LIMITS)
    assert [prompt.seed for prompt in call.prompts] == [5, 2**64 - 1]
    assert [renderer.decode(prompt.ids) for prompt in call.prompts] == ["Hello", "a"]
    assert all(prompt.ids[0] == renderer.bos_id for prompt in call.prompts)
    assert (call.completions_per_prompt, call.stop, call.required) == (3, ("x",), pin)
    assert (call.sampling.temperature, call.sampling.top_k, call.sampling.top_p) == (0.5, 7, 0.9)


def test_defaults_change_nothing_of_the_distribution(renderer):
    bare = pb.GenerateRequest(
        prompts=[pb.GeneratePrompt(prompt=common.Content(text="a"))], sampling=pb.SamplingParams(max_new_tokens=1)
    )
    call = generate_call(bare, renderer, LIMITS)
    assert (call.sampling.temperature, call.sampling.top_k, call.sampling.top_p) == (1.0, 0, 1.0)
    assert call.completions_per_prompt == 1
    assert call.required is None


def test_the_server_picks_seeds_where_none_are_given(renderer):
    call = generate_call(request(["a", "a", "a"]), renderer, LIMITS)
    assert len({prompt.seed for prompt in call.prompts}) == 3


def test_renders_conversations_and_texts_with_the_chat_template(chat_renderer):
    conversation = [Message("system", "Be brief."), Message("user", "Hello")]
    call = generate_call(request([conversation, "Hello"]), chat_renderer, LIMITS)
    texts = [chat_renderer.decode(prompt.ids) for prompt in call.prompts]
    assert texts == ["[system] Be brief.\n[user] Hello\n[assistant] ", "[user] Hello\n[assistant] "]
    assert all(prompt.ids.count(chat_renderer.bos_id) == 1 for prompt in call.prompts)


def test_takes_token_ids_as_they_are_and_in_their_place(renderer):
    ids = TokenIds((9, 8, 7), renderer.tokenizer_digest)
    call = generate_call(request(["a", ids, "b"]), renderer, LIMITS)
    assert call.prompts[1].ids == (9, 8, 7)
    assert [renderer.decode(call.prompts[place].ids) for place in (0, 2)] == ["a", "b"]


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"prompts": []}, InvalidRequest, "at least one"),
        ({"prompts": ["a"] * 5}, TooLarge, "5 prompts"),
        ({"prompts": ["a"] * 4, "completions": 2}, TooLarge, "8 completions"),
        ({"temperature": 0.0}, InvalidRequest, "temperature is 0.0"),
        ({"temperature": -1.0}, InvalidRequest, "temperature"),
        ({"temperature": float("nan")}, InvalidRequest, "temperature"),
        ({"temperature": float("inf")}, InvalidRequest, "temperature"),
        ({"top_p": 0.0}, InvalidRequest, "top_p is 0.0"),
        ({"top_p": 1.1}, InvalidRequest, "top_p"),
        ({"top_p": float("nan")}, InvalidRequest, "top_p"),
        ({"top_k": 321}, InvalidRequest, "top_k is 321"),
        ({"max_new_tokens": 0}, InvalidRequest, "max_new_tokens"),
        ({"max_new_tokens": 64}, InvalidRequest, "max_new_tokens = 64 it would pass the policy's 64"),
        ({"prompts": ["word " * 100]}, InvalidRequest, "prompt 0 has"),
        ({"stop": ("",)}, InvalidRequest, "stop has an empty text"),
        ({"stop": ("x",) * 17}, InvalidRequest, "stop takes"),
        ({"stop": ("x" * 257,)}, InvalidRequest, "stop takes"),
        ({"prompts": [[]]}, InvalidRequest, "prompt 0 is empty"),
        ({"prompts": [[Message("user", "a"), Message("user", "b")]]}, InvalidRequest, "no chat template"),
        ({"prompts": [TokenIds((1,), "")]}, InvalidRequest, "tokenizer_digest is missing"),
        ({"prompts": [TokenIds((1,), "other")]}, WrongPin, "tokenizer other"),
    ],
)
def test_refuses(renderer, wrong, error, message):
    with pytest.raises(error, match=message):
        generate_call(request(**wrong), renderer, LIMITS)


def test_refuses_ids_outside_of_the_vocabulary_and_no_ids(renderer):
    with pytest.raises(InvalidRequest, match="token id 320"):
        generate_call(request([TokenIds((1, 320), renderer.tokenizer_digest)]), renderer, LIMITS)
    with pytest.raises(InvalidRequest, match="no token ids"):
        generate_call(request([TokenIds((), renderer.tokenizer_digest)]), renderer, LIMITS)


def test_reads_sequences(renderer):
    pin = PolicyVersion("run", 1, 2)
    wanted = logprobs_request([([1, 5], [6, 2])], 0.7, renderer.tokenizer_digest, pin)
    call = logprobs_call(wanted, renderer, LIMITS)
    assert (call.sequences, call.temperature, call.required) == ((((1, 5), (6, 2)),), 0.7, pin)


@pytest.mark.parametrize(
    ("sequences", "temperature", "error", "message"),
    [
        ([], 1.0, InvalidRequest, "at least one"),
        ([([1], [2])] * 5, 1.0, TooLarge, "5 prompts or sequences"),
        ([([], [2])], 1.0, InvalidRequest, "sequence 0 needs"),
        ([([1], [2]), ([1], [])], 1.0, InvalidRequest, "sequence 1 needs"),
        ([([1], [320])], 1.0, InvalidRequest, "token id 320"),
        ([([1] * 40, [2] * 25)], 1.0, InvalidRequest, "65 tokens"),
        ([([1], [2] * 60)] * 4, 1.0, TooLarge, "240 logprobs"),
        ([([1], [2])], 0.0, InvalidRequest, "temperature"),
    ],
)
def test_refuses_sequences(renderer, sequences, temperature, error, message):
    with pytest.raises(error, match=message):
        logprobs_call(logprobs_request(sequences, temperature, renderer.tokenizer_digest, None), renderer, LIMITS)


@pytest.mark.parametrize(("digest", "error"), [("", InvalidRequest), ("other", WrongPin)])
def test_refuses_ids_of_another_tokenizer(renderer, digest, error):
    with pytest.raises(error):
        logprobs_call(logprobs_request([([1], [2])], 1.0, digest, None), renderer, LIMITS)


def test_refuses_kinds_of_weights_it_does_not_know():
    for kind in (0, 4):
        with pytest.raises(InvalidRequest, match=f"kind {kind} is not supported"):
            manifest_relation(pb.WeightsManifest(kind=kind))
    with pytest.raises(InvalidRequest, match="a delta needs base"):
        manifest_relation(pb.WeightsManifest(kind=pb.WEIGHTS_KIND_DELTA))
    assert manifest_relation(pb.WeightsManifest(kind=pb.WEIGHTS_KIND_FULL)) is None


def test_adapters_say_what_they_are_added_to_and_how_much_they_count():
    base, kind = pb.PolicyVersion(digest="d"), pb.WEIGHTS_KIND_LORA
    assert manifest_relation(pb.WeightsManifest(kind=kind, base=base, lora_scale=2)) == AddedTo(
        PolicyVersion(digest="d"), 2.0
    )
    changed = [pb.TensorSpec(name="a", changed_elements=1)]
    for manifest, told in (
        (pb.WeightsManifest(kind=kind, lora_scale=2), "needs base"),
        (pb.WeightsManifest(kind=kind, base=base), "need lora_scale"),
        (pb.WeightsManifest(kind=kind, base=base, lora_scale=float("nan")), "need lora_scale, a finite number"),
        (pb.WeightsManifest(kind=kind, base=base, lora_scale=2, tensors=changed), "changed_elements is of deltas"),
        (pb.WeightsManifest(kind=pb.WEIGHTS_KIND_FULL, lora_scale=2), "lora_scale is of WEIGHTS_KIND_LORA alone"),
    ):
        with pytest.raises(InvalidRequest, match=told):
            manifest_relation(manifest)


def test_refuses_a_second_manifest():
    for message in (pb.StageWeightsRequest(manifest=pb.WeightsManifest()), pb.StageWeightsRequest()):
        with pytest.raises(InvalidRequest, match="every message holds a chunk"):
            weights_chunk(message)
