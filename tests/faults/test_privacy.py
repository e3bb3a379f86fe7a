"""A text that users send is seen by nobody else: not in logs, metrics, traces or errors, whatever the call comes to."""

import json
import urllib.request
from contextlib import contextmanager

import grpc
import pytest

from palate.oip.messages import NAME, message
from palate.v1 import policy_service_pb2 as policy
from palate.v1 import reward_service_pb2 as reward
from tests.oip_client import column, infer_request, texts_request
from tests.otlp_collector import attributes, collecting
from tests.reward_folders import make_llama
from tests.servers import start_server
from tests.tiny_models import make_tiny_policy

CANARY = "kanarienvogel-7f3a"
LONG = f"{CANARY} " * 400

REFUSES = (
    "{{ bos_token }}{% for m in messages %}{% if m.role not in ['user', 'assistant'] %}"
    "{{ raise_exception('I know no ' + m.role + ', which says ' + m.content) }}{% endif %}"
    "{% if m.content[-6:] == 'divide' %}{{ 1 / 0 }}{% endif %}"
    "{% if m.content[-6:] == 'lookup' %}{{ m[m.content].x }}{% endif %}{{ m.content }}{% endfor %}"
)
"""A template that quotes what it refuses, and fails in two more ways."""

REWARD, POLICY = "/palate.v1.RewardService/", "/palate.v1.PolicyService/"


@contextmanager
def traced(module, folder):
    """A server whose spans, of all calls it has had, hold nothing of their texts."""
    with collecting() as collector:
        flags = ("--threads", "1", "--max-message-bytes", "65536", "--otlp-endpoint", collector.endpoint)
        with start_server(module, folder, *flags) as running:
            yield running
            running.stop()  # sends what is left
        codes = {attributes(span).get("grpc_code") for span in collector.spans}
        assert codes >= {"OK", "InvalidArgument"}
        assert CANARY not in str(collector.spans)


@pytest.fixture(scope="module")
def reward_server(tmp_path_factory):
    folder = make_llama(tmp_path_factory.mktemp("reward") / "judge", chat_template=REFUSES)
    with traced("services.reward", folder) as running:
        yield running


@pytest.fixture(scope="module")
def policy_server(tmp_path_factory):
    folder = make_tiny_policy(tmp_path_factory.mktemp("policy"), seed=0, chat=True)
    (folder / "chat_template.jinja").write_text(REFUSES)
    with traced("services.policy", folder) as running:
        yield running


def text(value):
    return {"text": value}


def says(role, value):
    return {"conversation": {"messages": [{"role": role, "content": value}]}}


PROMPTS = [
    text(CANARY),
    text(f"\0{CANARY}"),
    text(LONG),
    says("user", CANARY),
    says(CANARY, "hello"),
    says("system", CANARY),
    says("user", f"{CANARY}divide"),
    says("user", f"{CANARY}lookup"),
    {"token_ids": {"ids": [1, 2], "tokenizer_digest": CANARY}},
]
"""Some are answered, the others refused for one reason each."""


def items_of(content):
    return [{"prompt": content, "completion": text(CANARY)}, {"prompt": text("a"), "completion": content}]


def reward_calls():
    for content in PROMPTS:
        yield "Score", reward.ScoreRequest(items=items_of(content))
        yield "Compare", reward.CompareRequest(prompt=content, first=text(CANARY), second=content)
        yield "Rank", reward.RankRequest(prompt=content, completions=[text(CANARY), content, text("")])
        yield "Explain", reward.ExplainRequest(item=items_of(content)[1])
    for options in ({"priority": 99}, {"truncation": 99}, {"include_members": True}, {"model": "none"}):
        yield "Score", reward.ScoreRequest(items=items_of(PROMPTS[0]), options=options)
    yield "Score", reward.ScoreRequest(items=items_of(PROMPTS[0]) * 600)
    yield "Score", reward.ScoreRequest(items=[{"prompt": text(CANARY * 10_000), "completion": text("a")}])


def policy_calls():
    for content in PROMPTS:
        for sampling in ({"max_new_tokens": 2, "stop": [CANARY]}, {"max_new_tokens": 0}, {"temperature": -1.0}):
            yield "Generate", policy.GenerateRequest(prompts=[{"prompt": content}], sampling=sampling)
    yield (
        "Generate",
        policy.GenerateRequest(prompts=[{"prompt": text(CANARY)}], sampling={"max_new_tokens": 1, "stop": [LONG]}),
    )
    yield "ComputeLogprobs", policy.ComputeLogprobsRequest(tokenizer_digest=CANARY)


def inferences():
    talk = [{"role": "user", "content": CANARY}, {"role": "assistant", "content": CANARY}]
    yield texts_request([(CANARY, CANARY)])
    yield texts_request([(CANARY, "")])
    yield texts_request([(LONG, LONG)])
    yield infer_request(column("PROMPT", [f"\xff{CANARY}".encode("latin-1")]), column("RESPONSE", [CANARY.encode()]))
    yield infer_request(column("PROMPT", [CANARY.encode()] * 2), column("RESPONSE", [CANARY.encode()]))
    for document in (talk, talk[:1], [{**talk[1], "name": CANARY}], [{"role": "assistant", "content": 1, "x": CANARY}]):
        yield infer_request(column("MESSAGES", [json.dumps(document).encode()]))
    yield infer_request(column("MESSAGES", [f"[{CANARY}".encode()]))
    yield infer_request(column("MESSAGES", [json.dumps([{"role": CANARY, "content": "a"}, talk[1]]).encode()]))
    inputs = {"name": "MESSAGES", "datatype": "BYTES", "shape": [1, 1]}
    yield infer_request(inputs, raw=[CANARY.encode()])


def told_by(target, method, requests, *, streams=False, timeout=60):
    """What one call gives back: replies, or its error with all metadata."""
    with grpc.insecure_channel(target, options=[("grpc.max_send_message_length", -1)]) as channel:
        try:
            if streams:
                return list(channel.stream_stream(method)(iter(requests), timeout=timeout)), ""
            return list(channel.unary_stream(method)(requests, timeout=timeout)), ""
        except grpc.RpcError as error:
            return [], f"{error.code()} {error.details()} {error.trailing_metadata()} {error.debug_error_string()}"


def page_of(server):
    with urllib.request.urlopen(f"http://{server.metrics_target}/metrics", timeout=10) as page:
        return page.read().decode()


def seen_by_others(server):
    return server.log.read_text() + page_of(server)


def errors_in(reply):
    """Every message of an item's error, wherever it stands in a reply."""
    for field, value in reply.ListFields():
        if field.message_type is None:
            continue
        for part in value if field.is_repeated else [value]:
            if field.name == "error":
                yield part.message
            yield from errors_in(part)


BROKEN = (b"\x0a\xff" + CANARY.encode(), CANARY.encode(), b"\x0a\x13\xff" + CANARY.encode())
"""No protobuf, or a text in it that is not UTF-8."""


def test_texts_to_score_are_in_no_log_metric_or_error(reward_server):
    errors, failed = [], 0
    for name, request in reward_calls():
        replies, error = told_by(reward_server.target, REWARD + name, request.SerializeToString())
        errors.append(error)
        for raw in replies:
            kind = getattr(reward, f"{name}Response")
            found = list(errors_in(kind.FromString(raw)))
            failed += len(found)
            errors += found
    for raw in BROKEN:
        names = ("Score", "Compare", "Rank", "Explain", "GetModelInfo", "Guess")
        errors += [told_by(reward_server.target, REWARD + name, raw)[1] for name in names]
    errors.append(told_by(reward_server.target, REWARD + "Score", _scores().SerializeToString(), timeout=1e-4)[1])
    assert failed > 30
    assert sum(bool(error) for error in errors) > 30
    assert not [error for error in errors if CANARY in error]
    assert "I know no" in " ".join(errors)  # what the template says itself still helps
    assert CANARY not in seen_by_others(reward_server)


def _scores():
    return reward.ScoreRequest(items=items_of(PROMPTS[0]))


def test_texts_of_a_stream_are_in_no_log_metric_or_error(reward_server):
    options = reward.ScoreStreamRequest(options={})
    errors = []
    for number, content in enumerate(PROMPTS):
        sent = [reward.ScoreStreamRequest(item={"id": number, "item": item}) for item in items_of(content)]
        requests = [part.SerializeToString() for part in (options, *sent, sent[0])]
        replies, error = told_by(reward_server.target, REWARD + "ScoreStream", requests, streams=True)
        errors.append(error)
        for raw in replies:
            errors += errors_in(reward.ScoreStreamResponse.FromString(raw))
    for raw in BROKEN:
        requests = [options.SerializeToString(), raw]
        errors.append(told_by(reward_server.target, REWARD + "ScoreStream", requests, streams=True)[1])
    assert len(errors) > 20
    assert not [error for error in errors if CANARY in error]
    assert CANARY not in seen_by_others(reward_server)


def test_texts_of_the_open_inference_protocol_are_in_no_log_metric_or_error(reward_server):
    errors = []
    for request in inferences():
        for partial in (False, True):
            request.parameters["partial"].bool_param = partial
            replies, error = told_by(reward_server.target, f"/{NAME}/ModelInfer", request.SerializeToString())
            errors += [error, *(str(message("ModelInferResponse").FromString(raw)) for raw in replies)]
    errors += [told_by(reward_server.target, f"/{NAME}/ModelInfer", raw)[1] for raw in BROKEN]
    assert sum(error.startswith("StatusCode") for error in errors) >= 15
    assert not [error for error in errors if CANARY in error]
    assert CANARY not in seen_by_others(reward_server)


def test_texts_to_continue_are_in_no_log_metric_or_error(policy_server):
    errors = []
    for name, request in policy_calls():
        errors.append(told_by(policy_server.target, POLICY + name, request.SerializeToString())[1])
    for raw in BROKEN:
        names = ("Generate", "ComputeLogprobs", "AcquirePublisher", "CommitWeights", "GetPolicyInfo")
        errors += [told_by(policy_server.target, POLICY + name, raw)[1] for name in names]
        errors.append(told_by(policy_server.target, POLICY + "StageWeights", [raw], streams=True)[1])
    assert sum(bool(error) for error in errors) > 30
    assert not [error for error in errors if CANARY in error]
    assert CANARY not in seen_by_others(policy_server)
