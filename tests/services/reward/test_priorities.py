"""Who may have work done before everybody else's: by role, in both protocols, and for as long as he has the role."""

import queue
from collections import deque
from contextlib import contextmanager
from contextvars import copy_context
from itertools import count
from pathlib import Path

import grpc
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.protected import make_protection, token_of
from palate.client import ChannelOptions, PermissionDenied, Priority, RewardClient
from palate.v1 import reward_service_pb2 as reward
from palate.v1.reward_service_pb2_grpc import RewardServiceStub
from services.reward.options import demand_of
from services.runtime import errors
from services.runtime.callers import enter_call
from services.runtime.identity import Identity
from services.runtime.roles import Role
from tests.fuzz.folders import model
from tests.oip_client import OipClient, texts_request
from tests.servers import start_server

LEVELS = {
    reward.PRIORITY_UNSPECIFIED: 1,
    reward.PRIORITY_LOW: 0,
    reward.PRIORITY_NORMAL: 1,
    reward.PRIORITY_HIGH: 2,
}
HIGH = {Role.EXPEDITER, Role.ADMIN}
REFUSED = r"-team may not ask for a priority above normal; it is for: admin, expediter\. Leave the priority away"


def demanded(caller: Identity | None, priority: int) -> int:
    """The priority at which such a caller's work is done."""

    def call() -> int:
        enter_call(caller, "ipv4:10.0.0.7:1")
        return demand_of(reward.ScoreOptions(priority=priority), model(), 1.0).priority

    return copy_context().run(call)


@given(roles=st.sets(st.sampled_from(list(Role)), min_size=1), priority=st.sampled_from(reward.Priority.values()))
def test_only_the_role_goes_before_others(roles: set[Role], priority: int):
    caller = Identity("a-team", frozenset(roles), None, "a.pod", None)
    if priority == reward.PRIORITY_HIGH and not roles & HIGH:
        with pytest.raises(errors.PermissionDenied, match="^a" + REFUSED):
            demanded(caller, priority)
    else:
        assert demanded(caller, priority) == LEVELS[priority]


def test_where_nobody_is_known_everybody_may():
    assert {priority: demanded(None, priority) for priority in LEVELS} == LEVELS


@contextmanager
def guarded(bert: Path, folder: Path):
    with start_server("services.reward", bert, "--engine", "fake", *make_protection(folder).token_flags) as server:
        yield server


@pytest.fixture(scope="module")
def server(bert: Path, tmp_path_factory: pytest.TempPathFactory):
    with guarded(bert, tmp_path_factory.mktemp("protected")) as server:
        yield server


def client_of(server, role: str) -> RewardClient:
    return RewardClient(server.target, options=ChannelOptions(token=token_of(role), max_attempts=1))


CALLS = {
    "Score": lambda client, priority: client.score(["p"], ["c"], priority=priority).scores(),
    "Compare": lambda client, priority: client.compare("p", "c", "d", priority=priority),
    "Rank": lambda client, priority: client.rank("p", ["c", "d"], priority=priority),
    "Explain": lambda client, priority: client.explain("p", "c", priority=priority),
    "ScoreStream": lambda client, priority: [
        result.score for _, result in client.score_stream([("p", "c")], priority=priority)
    ],
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_every_call_that_scores_asks_for_the_role(server, call):
    for role in ("scorer", "trainer", "expediter", "admin"):
        with client_of(server, role) as client:
            for priority in (Priority.LOW, Priority.NORMAL):
                assert call(client, priority)
            if role in HIGH:
                assert call(client, Priority.HIGH)
            else:
                with pytest.raises(PermissionDenied, match=role + REFUSED):
                    call(client, Priority.HIGH)


def test_so_does_the_open_inference_protocol(server):
    with grpc.insecure_channel(server.target) as channel:
        for role, priority in (("scorer", 2), ("scorer", 3), ("expediter", 1)):
            request = texts_request([("p", "c")], parameters={"priority": priority})
            assert OipClient(channel, token_of(role)).call("ModelInfer", request).outputs
        with pytest.raises(grpc.RpcError, match="scorer" + REFUSED) as refusal:
            OipClient(channel, token_of("scorer")).call(
                "ModelInfer", texts_request([("p", "c")], parameters={"priority": 1})
            )
        assert refusal.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_a_stream_whose_caller_loses_the_role_ends_at_its_next_item(bert: Path, tmp_path: Path):
    with guarded(bert, tmp_path) as server, grpc.insecure_channel(server.target) as channel:
        requests: queue.SimpleQueue[reward.ScoreStreamRequest] = queue.SimpleQueue()
        requests.put(reward.ScoreStreamRequest(options={"priority": reward.PRIORITY_HIGH}))
        metadata = (("authorization", f"Bearer {token_of('expediter')}"),)
        call = RewardServiceStub(channel).ScoreStream(iter(requests.get, None), metadata=metadata, timeout=60)

        def answer(number: int) -> int:
            content = {"prompt": {"text": "p"}, "completion": {"text": str(number)}}
            requests.put(reward.ScoreStreamRequest(item={"id": number, "item": content}))
            return next(call).id

        assert answer(0) == 0
        identities = tmp_path / "identities.yaml"
        (own,) = (one for one in yaml.safe_load(identities.read_text()) if one["name"] == "expediter-team")
        identities.write_text(yaml.safe_dump([{**own, "roles": ["scorer"]}]))  # who may still score
        with pytest.raises(grpc.RpcError, match="expediter" + REFUSED) as refusal:
            deque(map(answer, count(1)), maxlen=0)
        requests.put(None)
    assert refusal.value.code() is grpc.StatusCode.PERMISSION_DENIED
