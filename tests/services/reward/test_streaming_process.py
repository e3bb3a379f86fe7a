"""ScoreStream through a real server and our client: what arrives, and that nothing is lost when servers go."""

import asyncio
import itertools
import signal
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest

from palate.client import (
    AsyncRewardClient,
    DeadlineExceeded,
    Failed,
    FailedPrecondition,
    ItemErrorCode,
    NotFound,
    RewardClient,
    Scored,
    TokenIds,
    Unavailable,
    stream_state,
)
from palate.local_server import LocalServer, local_server
from palate.v1 import reward_service_pb2 as reward
from palate.v1.reward_service_pb2_grpc import RewardServiceStub
from tests.reward_folders import make_bert, texts

PAIRS = texts(300, seed=9)
OPTIONS = reward.ScoreStreamRequest(options={})
RESTARTED = "grpc_server_started_total"


def command(folder: Path, *flags: str) -> list[str]:
    """The engine is the fake one: its scores depend on the token ids, and the model plays no part here."""
    return ["-m", "services.reward", "--model", str(folder), "--engine", "fake", *flags]


def item(number: int, completion: str, **timeout: int) -> reward.ScoreStreamRequest:
    content = {"prompt": {"text": "an idea"}, "completion": {"text": completion}}
    return reward.ScoreStreamRequest(item={"id": number, "item": content, **({"timeout": timeout} if timeout else {})})


def metric(server: LocalServer, name: str, *labels: str) -> float:
    with urllib.request.urlopen(f"http://{server.metrics_target}/metrics", timeout=10) as page:
        lines = page.read().decode().splitlines()
    found = [line for line in lines if line.startswith(name) and all(label in line for label in labels)]
    return sum(float(line.rpartition(" ")[2]) for line in found)


@pytest.fixture(scope="module")
def server(bert: Path) -> Iterator[LocalServer]:
    with local_server(command(bert, "--max-stream-items", "8")) as running:
        yield running


@pytest.fixture
def client(server: LocalServer) -> Iterator[RewardClient]:
    with RewardClient(server.target) as made:
        yield made


@pytest.fixture
def stub(server: LocalServer) -> Iterator[RewardServiceStub]:
    with grpc.insecure_channel(server.target) as channel:
        yield RewardServiceStub(channel)


def unary_scores(client: RewardClient) -> dict[int, float]:
    return dict(enumerate(client.score(*zip(*PAIRS, strict=True)).scores()))


def scores_of(results: dict[int, Scored | Failed]) -> dict[int, float]:
    return {index: result.score for index, result in results.items() if isinstance(result, Scored)}


def once(results) -> dict[int, Scored | Failed]:
    """Every index with its one result."""
    pairs = list(results)
    assert len({index for index, _ in pairs}) == len(pairs)
    return dict(pairs)


def test_a_stream_scores_as_a_call_does(client: RewardClient):
    with client.score_stream(iter(PAIRS), window=32) as stream:
        assert scores_of(once(stream)) == unary_scores(client)
        assert stream.provenance == client.model_info().provenance
        assert stream.unanswered == ()


async def test_an_awaited_stream_scores_as_a_call_does(server: LocalServer, client: RewardClient):
    async def slowly():
        for pair in PAIRS:
            await asyncio.sleep(0)
            yield pair

    async with AsyncRewardClient(server.target) as awaited:
        for pairs in (PAIRS, slowly()):
            async with awaited.score_stream(pairs, window=32) as stream:
                assert scores_of(once([result async for result in stream])) == unary_scores(client)
        assert await awaited.list_models() == client.list_models()


def test_pairs_without_end_and_a_stream_left_early(client: RewardClient, server: LocalServer):
    read = itertools.count()
    with client.score_stream((("an idea", f"plan {n}") for n in read), window=16) as stream:
        assert len({next(stream)[0] for _ in range(200)}) == 200
    assert next(read) <= 200 + 16
    while metric(server, "palate_reward_streams ") or metric(server, "palate_reward_stream_items "):
        pass


async def test_an_awaited_stream_left_early(server: LocalServer):
    read = itertools.count()
    async with (
        AsyncRewardClient(server.target) as client,
        client.score_stream((("an idea", f"plan {n}") for n in read), window=16) as stream,
    ):
        assert len({(await anext(stream))[0] for _ in range(200)}) == 200
    assert next(read) <= 200 + 16


def test_no_pairs_no_results_and_no_call():
    with RewardClient("127.0.0.1:1") as client:
        assert list(client.score_stream([])) == []


@pytest.mark.parametrize("bad", ["", "plan " * 400, "\ud800", TokenIds((-1,), "x"), "x" * 5_000_000])
async def test_a_bad_item_fails_alone(client: RewardClient, server: LocalServer, bad):
    pairs = [("an idea", "plan"), ("an idea", bad), ("an idea", "honest plan")]
    async with AsyncRewardClient(server.target) as awaited:
        for results in (once(client.score_stream(pairs)), once([r async for r in awaited.score_stream(pairs)])):
            assert isinstance(results[0], Scored)
            assert isinstance(results[1], Failed)
            assert results[1].code in (ItemErrorCode.INVALID, ItemErrorCode.TOO_LONG)
            assert isinstance(results[2], Scored)


def test_pairs_that_cannot_be_read_raise_what_they_raise(client: RewardClient, server: LocalServer):
    def pairs():
        yield "an idea", "plan"
        raise LookupError("no more")

    async def awaited() -> None:
        async with AsyncRewardClient(server.target) as many:
            [result async for result in many.score_stream(pairs())]

    with pytest.raises(LookupError, match="no more"):
        list(client.score_stream(pairs()))
    with pytest.raises(LookupError, match="no more"):
        asyncio.run(awaited())


def test_an_items_own_time(stub: RewardServiceStub, client: RewardClient):
    replies = stub.ScoreStream(iter([OPTIONS, item(1, "plan", nanos=1), item(2, "plan", seconds=30)]), timeout=30)
    results = {reply.id: reply.result for reply in replies}
    assert results[1].error.code == reward.ITEM_ERROR_CODE_EXPIRED
    assert results[1].error.retryable
    assert results[2].WhichOneof("outcome") == "scored"
    expired = once(client.score_stream(PAIRS[:5], timeout_per_item=1e-9))
    assert {result.code for result in expired.values()} == {ItemErrorCode.EXPIRED}
    with pytest.raises(ValueError, match="timeout_per_item"):
        client.score_stream(PAIRS, timeout_per_item=0)


def test_a_stream_without_order_is_refused(stub: RewardServiceStub, server: LocalServer):
    for requests, message in [
        ([], "first message"),
        ([item(1, "plan")], "first message"),
        ([OPTIONS, item(1, "plan"), OPTIONS], "holds an item"),
        ([reward.ScoreStreamRequest(options={"truncation": 17})], "truncation 17"),
    ]:
        with pytest.raises(grpc.RpcError) as caught:
            list(stub.ScoreStream(iter(requests), timeout=30))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert message in caught.value.details()
    with grpc.insecure_channel(server.target) as channel:
        raw = channel.stream_stream("/palate.v1.RewardService/ScoreStream")
        with pytest.raises(grpc.RpcError) as caught:
            list(raw(iter([OPTIONS.SerializeToString(), b"\xff\xff"]), timeout=30))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "malformed" in caught.value.details()


def test_the_models_of_a_server(client: RewardClient):
    info = client.model_info()
    (model,) = client.list_models()
    assert (model.name, model.revision, model.kind) == (info.provenance.model, info.provenance.revision, info.kind)
    assert model.is_default
    assert {"list_models", "score_stream"} <= set(info.capabilities)


def test_a_stream_that_cannot_begin_raises(server: LocalServer):
    for options, error in [({"model": "other"}, NotFound), ({"revision": "0" * 64}, FailedPrecondition)]:
        with RewardClient(server.target, **options) as client, pytest.raises(error):
            list(client.score_stream(PAIRS))
    with RewardClient("127.0.0.1:1") as client, pytest.raises(Unavailable, match="is the server running"):
        list(client.score_stream(PAIRS, patience=0.3))


def killed(servers: ExitStack, server: LocalServer, folder: Path) -> None:
    """Ends a server in the middle of its work and starts another one at its address."""
    server.process.kill()
    server.process.wait()
    servers.enter_context(local_server(command(folder), port=int(server.target.rpartition(":")[2])))


def drained(servers: ExitStack, server: LocalServer, folder: Path) -> None:
    """The same, but the server is told to stop, with streams open."""
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(20) == 0
    servers.enter_context(local_server(command(folder), port=int(server.target.rpartition(":")[2])))


@pytest.mark.parametrize("gone", [killed, drained])
def test_every_item_is_answered_once_though_the_server_goes(bert: Path, gone):
    results = []
    with ExitStack() as servers:
        server = servers.enter_context(local_server(command(bert)))
        with RewardClient(server.target) as client:
            expected = unary_scores(client)
            stream = client.score_stream(PAIRS, window=32)
            results += itertools.islice(stream, 100)
            gone(servers, server, bert)
            results += stream
    assert scores_of(once(results)) == expected


def test_items_in_the_hands_of_a_killed_server_are_answered_by_the_next(bert: Path):
    results = []
    with ExitStack() as servers:
        server = servers.enter_context(local_server(command(bert)))
        with RewardClient(server.target) as client, client.score_stream(PAIRS, window=32) as stream:
            expected = unary_scores(client)
            results += itertools.islice(stream, 100)
            server.process.send_signal(signal.SIGSTOP)
            reading = threading.Thread(target=lambda: results.extend(stream))
            reading.start()
            while len(stream.unanswered) < 32:  # those the frozen server will never answer
                pass
            killed(servers, server, bert)
            reading.join()
    assert scores_of(once(results)) == expected


@pytest.mark.parametrize("gone", [killed, drained])
async def test_every_item_of_an_awaited_stream_is_answered_once(bert: Path, gone):
    results = []
    with ExitStack() as servers:
        server = servers.enter_context(local_server(command(bert)))
        async with AsyncRewardClient(server.target) as client:
            expected = dict(enumerate((await client.score(*zip(*PAIRS, strict=True))).scores()))
            async with client.score_stream(PAIRS, window=32) as stream:
                results += [await anext(stream) for _ in range(100)]
                await asyncio.to_thread(gone, servers, server, bert)
                results += [result async for result in stream]
    assert scores_of(once(results)) == expected


def test_scores_of_two_revisions_do_not_mix(bert: Path, tmp_path: Path):
    other = make_bert(tmp_path / "other", seed=1)
    with ExitStack() as servers:
        server = servers.enter_context(local_server(command(bert)))
        with RewardClient(server.target) as client:
            stream = client.score_stream(PAIRS, window=32)
            answered = dict(itertools.islice(stream, 100))
            killed(servers, server, other)
            with pytest.raises(FailedPrecondition, match="revision"):
                answered.update(stream)
            assert set(stream.unanswered).isdisjoint(answered)
            assert len(stream.unanswered) + len(answered) <= len(PAIRS)


def test_a_server_that_never_comes_back_leaves_no_item_unnamed(bert: Path):
    with local_server(command(bert)) as server, RewardClient(server.target) as client:
        stream = client.score_stream(PAIRS, window=32, patience=0.3)
        answered = dict(itertools.islice(stream, 100))
        server.process.kill()
        with pytest.raises(Unavailable):
            answered.update(stream)
        assert stream.unanswered
        assert sorted([*answered, *stream.unanswered]) == list(range(len(answered) + len(stream.unanswered)))


def test_a_server_that_says_nothing_is_not_waited_for_for_ever(bert: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stream_state, "_SLACK_SECONDS", 0.5)
    with local_server(command(bert)) as server, RewardClient(server.target) as client:
        stream = client.score_stream(PAIRS, window=32, timeout_per_item=0.5, patience=0.1)
        answered = dict(itertools.islice(stream, 100))
        server.process.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(DeadlineExceeded, match="no answer from"):
                answered.update(stream)
        finally:
            server.process.send_signal(signal.SIGCONT)
        assert stream.unanswered


def test_old_connections_end_without_losing_anything(bert: Path):
    flags = ("--max-connection-age-seconds", "0.3")
    with local_server(command(bert, *flags)) as server, RewardClient(server.target) as client:

        def until_reconnected() -> Iterator[tuple[str, str]]:
            for number in itertools.count():
                if number % 50 == 0 and metric(server, RESTARTED, 'grpc_method="ScoreStream"') >= 4:
                    return
                yield "an idea", f"plan {number}"

        results = once(client.score_stream(until_reconnected(), window=16))
        assert all(isinstance(result, Scored) for result in results.values())
        assert sorted(results) == list(range(len(results)))


def test_more_callers_than_room(bert: Path):
    """Tiny limits everywhere: streams wait for each other, and none is refused."""
    flags = ("--max-queue-items", "2", "--max-batch-items", "2", "--max-stream-items", "3")

    async def scenario(target: str) -> None:
        async with AsyncRewardClient(target) as client:

            async def all_of(stream) -> dict[int, float]:
                return scores_of(once([result async for result in stream]))

            found = await asyncio.gather(*(all_of(client.score_stream(PAIRS, window=20)) for _ in range(8)))
            assert all(len(scores) == len(PAIRS) for scores in found)
            assert all(scores == found[0] for scores in found)

    with local_server(command(bert, *flags)) as server:
        asyncio.run(scenario(server.target))


def test_idle_streams_are_ended(bert: Path):
    """One that sends nothing at all, one that has its options and its answers and sends nothing more."""
    with (
        local_server(command(bert, "--stream-idle-seconds", "0.4")) as running,
        grpc.insecure_channel(running.target) as channel,
    ):
        stub, nothing_more = RewardServiceStub(channel), threading.Event()

        def asked(*messages: reward.ScoreStreamRequest) -> Iterator[reward.ScoreStreamRequest]:
            yield from messages
            nothing_more.wait(60)

        with pytest.raises(grpc.RpcError) as caught:
            next(stub.ScoreStream(asked(), timeout=60))
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "a stream begins with its options; none came within 0.4 s" in caught.value.details()
        replies = stub.ScoreStream(asked(OPTIONS, item(7, "an answer")), timeout=60)
        assert next(replies).id == 7
        with pytest.raises(grpc.RpcError) as caught:
            next(replies)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "this stream ends here; open another" in caught.value.details()
        nothing_more.set()


def test_a_client_whose_items_come_slowly_is_not_disturbed_by_the_end_of_an_idle_stream(bert: Path):
    with (
        local_server(command(bert, "--stream-idle-seconds", "0.3")) as running,
        RewardClient(running.target, timeout=60) as client,
    ):

        def slowly() -> Iterator[tuple[str, str]]:
            yield PAIRS[0]
            while metric(running, "grpc_server_handled_total", "ScoreStream", "Unavailable") < 1:
                pass
            yield PAIRS[1]

        results = dict(client.score_stream(slowly()))
    assert results.keys() == {0, 1}
    assert all(isinstance(result, Scored) for result in results.values())
