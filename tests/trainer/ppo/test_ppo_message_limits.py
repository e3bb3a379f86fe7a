"""Calls of the policy service that are over its message limit, which the client does not know."""

from concurrent import futures
from contextlib import contextmanager
from types import SimpleNamespace

import grpc
import pytest

from palate.client import OverLimit, PolicyClient
from palate.client.types import PolicyVersion, SamplingParams
from palate.v1 import policy_service_pb2 as pb
from palate.v1.policy_service_pb2_grpc import PolicyServiceServicer, add_PolicyServiceServicer_to_server
from trainer.ppo.errors import RolloutsFailed
from trainer.ppo.patience import Patience
from trainer.ppo.ref import RemoteRef
from trainer.ppo.rollouts import RolloutCollector, RolloutSettings
from trainer.types import PromptDraw, Sequences

VERSION = PolicyVersion("run", 1, 0, "digest")


class Small(PolicyServiceServicer):
    """Answers each sequence by its first token; remembers the sizes of the calls."""

    def __init__(self):
        self.sizes = []

    def ComputeLogprobs(self, request, context):
        self.sizes.append(len(request.sequences))
        rows = [pb.SequenceLogprobs(logprobs=[-float(each.prompt_ids[0])]) for each in request.sequences]
        return pb.ComputeLogprobsResponse(sequences=rows)


@contextmanager
def small_server():
    server, servicer = (
        grpc.server(futures.ThreadPoolExecutor(2), options=[("grpc.max_receive_message_length", 1000)]),
        Small(),
    )
    add_PolicyServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with PolicyClient(f"127.0.0.1:{port}", timeout=30.0) as client:
        yield client, servicer
    server.stop(0).wait()


def ref_of(client):
    info = SimpleNamespace(frozen=True, tokenizer_digest="d", max_tokens=9, policy_version=VERSION, max_prompts=8)
    renderer = SimpleNamespace(tokenizer_digest="d", manifest=SimpleNamespace(max_tokens=9))
    return RemoteRef(client, info, 1.0, renderer, Patience(1))


def sequences(*lengths):
    return Sequences(tuple((place, *(1,) * length) for place, length in enumerate(lengths)), ((1,),) * len(lengths))


def test_reference_logprobs_are_asked_for_in_as_many_calls_as_it_takes():
    with small_server() as (client, servicer):
        assert ref_of(client).logprobs(sequences(*[300] * 6)).tolist() == [[-float(place)] for place in range(6)]
    assert sum(servicer.sizes) == 6
    assert len(servicer.sizes) > 1


def test_one_sequence_over_the_limit_says_which_limit_to_raise():
    with small_server() as (client, _), pytest.raises(OverLimit, match="raise --max-message-bytes of the server"):
        ref_of(client).logprobs(sequences(5, 2000))


def test_a_generation_call_over_the_limit_says_what_to_lower_and_to_raise():
    with small_server() as (client, _):
        settings = RolloutSettings(SamplingParams(max_new_tokens=1), 4, Patience(3), timeout=30.0)
        collector = RolloutCollector(lambda: [SimpleNamespace(client=client)], lambda replica: None, settings)
        with pytest.raises(
            RolloutsFailed, match=r"call for 4 rollouts .*--services\.shard-prompts; .*--max-message-bytes"
        ):
            collector.collect([PromptDraw("p" * 400, (1,), seed) for seed in range(4)], VERSION)
