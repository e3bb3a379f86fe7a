"""A policy service that leaves out of its answers what a test says."""

from concurrent import futures
from contextlib import contextmanager

import grpc

from palate.client import PolicyClient
from palate.client.convert import policy_version_message
from palate.client.types import PolicyVersion
from palate.v1 import policy_service_pb2 as pb
from palate.v1.policy_service_pb2_grpc import PolicyServiceServicer, add_PolicyServiceServicer_to_server

VERSION = PolicyVersion("run", 1, 0, "digest")
PROMPT_IDS = (1, 5)


class Scripted(PolicyServiceServicer):
    """Draws what it is asked for, save some seeds; remembers which seeds each call asked for.

    Args:
        failing: Seeds that a call leaves out, call by call; the last holds for all that follow.
        ends: How a call ends that leaves some out, call by call, likewise; None = as if nothing were.
    """

    def __init__(self, failing, ends):
        self.calls = []
        self._failing, self._ends = list(failing), list(ends)

    def Generate(self, request, context):
        number = len(self.calls)
        seeds = [prompt.seed for prompt in request.prompts]
        self.calls.append(seeds)
        left_out = set(seeds) & self._failing[min(number, len(self._failing) - 1)]
        for place, seed in enumerate(seeds):
            if seed not in left_out:
                yield pb.GenerateResponse(completion=completion(place, seed))
        if left_out:
            code = self._ends[min(number, len(self._ends) - 1)]
            if code is not None:
                context.abort(code, f"the engine failed on {len(left_out)}")


def completion(place, seed):
    return pb.Completion(
        prompt_index=place,
        token_ids=[7, 8],
        text=f"drawn {seed}",
        logprobs=[-1.0, -2.0],
        finish_reason=pb.FINISH_REASON_STOP,
        policy_versions=[pb.VersionSpan(first_token=0, version=policy_version_message(VERSION))],
        seed=seed,
        prompt_token_ids=PROMPT_IDS,
    )


@contextmanager
def scripted(failing, ends=(grpc.StatusCode.INTERNAL,)):
    servicer, server = Scripted(failing, ends), grpc.server(futures.ThreadPoolExecutor(2))
    add_PolicyServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with PolicyClient(f"127.0.0.1:{port}") as client:
        yield client, servicer
    server.stop(0).wait()
