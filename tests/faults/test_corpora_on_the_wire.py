"""Every input that fuzzing kept, as raw bytes through real sockets: a status for each, and servers that go on."""

import urllib.request
from collections import Counter

import grpc
import pytest

from palate.client import PolicyClient, RewardClient, Scored
from tests.fuzz import corpus
from tests.fuzz.harness import frames_of
from tests.reward_folders import make_llama
from tests.servers import start_server
from tests.tiny_models import make_tiny_policy

REWARD, ADMIN = "/palate.v1.RewardService/", "/palate.v1.AdminService/"
POLICY, INFERENCE = "/palate.v1.PolicyService/", "/inference.GRPCInferenceService/"

CLEAR = {
    "OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED",
}  # fmt: skip
"""What bad input may be told: never INTERNAL, UNKNOWN, UNAVAILABLE, nor nothing until the deadline."""

ADMINISTRATION = ("LoadModel", "SetDefaultModel", "UnloadModel")
PUBLISHING = ("StageWeights", "AcquirePublisher", "CommitWeights", "RevertWeights", "AbortWeights")


@pytest.fixture(scope="module")
def reward_target(tmp_path_factory):
    folder = make_llama(tmp_path_factory.mktemp("reward") / "judge")
    flags = ("--engine", "fake", "--model-root", str(folder.parent / "none"))
    (folder.parent / "none").mkdir()
    with start_server("services.reward", folder, *flags) as running:
        yield running.target
        assert "a bug in" not in running.log.read_text()
        assert counted(running, "Internal") == counted(running, "Unknown") == 0


@pytest.fixture(scope="module")
def policy_target(tmp_path_factory):
    folder = make_tiny_policy(tmp_path_factory.mktemp("policy"), seed=0, chat=True)
    with start_server("services.policy", folder, "--engine", "fake") as running:
        yield running.target
        assert "a bug in" not in running.log.read_text()
        assert counted(running, "Internal") == counted(running, "Unknown") == 0


def counted(server, code):
    with urllib.request.urlopen(f"http://{server.metrics_target}/metrics", timeout=10) as page:
        lines = page.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if f'grpc_code="{code}"' in line)


def code_of(channel, method, messages):
    """The status of a call with these messages, whatever kind the method is."""
    try:
        list(channel.stream_stream(method)(iter(messages), timeout=60))
    except grpc.RpcError as error:
        return error.code().name
    return "OK"


def calls_of(name, data):
    """The calls that an input stands for: (method, messages) each."""
    service, _, rpc = name.partition(".")
    if service == "admin":
        return [(ADMIN + ADMINISTRATION[data[0] % 3 if data else 0], [data[1:]])]
    if name == "policy.publishing":
        frames = [frame or b"\0" for frame in frames_of(data[1:])]
        return [(POLICY + PUBLISHING[frame[0] % len(PUBLISHING)], [frame[1:]]) for frame in frames]
    if name == "policy.StageWeights":
        return [(POLICY + rpc, frames_of(data[1:]))]
    prefix = {"reward": REWARD, "policy": POLICY, "oip": INFERENCE}[service]
    return [(prefix + rpc, frames_of(data) if rpc == "ScoreStream" else [data])]


def codes_of(target, names):
    with grpc.insecure_channel(target) as channel:
        calls = [call for name in names for data in corpus.read(name) for call in calls_of(name, data)]
        return Counter(code_of(channel, method, messages) for method, messages in calls)


def test_a_reward_server_says_what_is_wrong_and_goes_on(reward_target):
    names = [f"reward.{rpc}" for rpc in ("Score", "Compare", "Rank", "Explain", "ScoreStream")]
    codes = codes_of(reward_target, [*names, "admin", "oip.ModelInfer"])
    assert codes.keys() <= CLEAR, codes
    assert codes["INVALID_ARGUMENT"] > 20
    with RewardClient(reward_target, timeout=30) as client:
        assert isinstance(client.score(["hello"], ["world"]).results[0], Scored)


def test_a_policy_server_says_what_is_wrong_and_goes_on(policy_target):
    codes = codes_of(policy_target, [f"policy.{rpc}" for rpc in ("Generate", "ComputeLogprobs", "StageWeights")])
    codes += codes_of(policy_target, ["policy.publishing"])
    assert codes.keys() <= CLEAR, codes
    assert codes["INVALID_ARGUMENT"] > 20
    with PolicyClient(policy_target, timeout=30) as client:
        assert client.policy_info().vocab_size
