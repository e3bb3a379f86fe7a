"""The whole server: a process of its own, a real socket, our own client."""

import asyncio
import math
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from palate.client import (
    AsyncRewardClient,
    Failed,
    FailedPrecondition,
    InvalidArgument,
    ItemErrorCode,
    ItemsFailed,
    Message,
    NotFound,
    Ranked,
    RewardClient,
    Scored,
    TokenIds,
    Truncation,
)
from palate.local_server import LocalServer, ServerStartError
from palate.v1 import reward_service_pb2 as reward
from palate.v1.reward_service_pb2_grpc import RewardServiceStub
from tests.reward_folders import change_json, make_bert, texts
from tests.servers import start_server
from tests.services.reward.references import direct_scores, open_folder, rows_of

PAIRS = texts(40, seed=5)
PROMPTS, COMPLETIONS = zip(*PAIRS, strict=True)


@pytest.fixture(scope="module")
def server(exported_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    folder = Path(shutil.copytree(exported_bert, tmp_path_factory.mktemp("served") / "tiny"))
    change_json(folder / "palate.json", logit_scale=0.5, calibration={"mean": 1.0, "std": 4.0})
    with start_server(
        "services.reward", folder, "--threads", "1", "--max-items", "50", "--cache-items", "0"
    ) as running:
        yield running


@pytest.fixture
def client(server: LocalServer) -> Iterator[RewardClient]:
    with RewardClient(server.target) as client:
        yield client


@pytest.fixture(scope="module")
def decoder(exported_llama: Path) -> Iterator[LocalServer]:
    with start_server("services.reward", exported_llama, "--threads", "1", "--name", "chatty") as running:
        yield running


def test_scores_over_the_wire_are_those_of_transformers(client: RewardClient, exported_bert: Path):
    reply = client.score(PROMPTS, COMPLETIONS)
    _, renderer = open_folder(exported_bert, "onnx")
    expected = direct_scores(exported_bert, renderer, PAIRS)
    assert np.abs(np.array(reply.scores()) - expected).max() <= 1e-4 * expected.std()
    for result, (row, score) in zip(
        reply.results, zip(rows_of(renderer, PAIRS), reply.scores(), strict=True), strict=True
    ):
        assert isinstance(result, Scored)
        assert result.token_count == len(row.token_ids)
        assert result.calibrated == pytest.approx((score - 1.0) / 4.0)
    assert (reply.provenance.model, reply.provenance.engine, reply.provenance.dtype) == ("tiny", "onnx", "float32")
    assert reply.provenance.revision == client.model_info().provenance.revision
    assert min(reply.timings.queue_seconds, reply.timings.tokenize_seconds, reply.timings.compute_seconds) > 0


def test_one_item_scores_as_it_does_among_others(client: RewardClient):
    together = client.score(PROMPTS, COMPLETIONS).scores()
    assert [client.score([p], [c]).scores()[0] for p, c in PAIRS] == together


def test_chat_messages_and_text_score_alike_on_a_chat_model(decoder: LocalServer, exported_llama: Path):
    with RewardClient(decoder.target) as client:
        as_text = client.score(PROMPTS, COMPLETIONS).scores()
        conversations = [[Message("user", prompt)] for prompt in PROMPTS]
        answers = [[Message("assistant", completion)] for completion in COMPLETIONS]
        assert client.score(conversations, answers).scores() == as_text
        _, renderer = open_folder(exported_llama, "onnx")
        expected = direct_scores(exported_llama, renderer, PAIRS)
        assert np.abs(np.array(as_text) - expected).max() <= 1e-4 * expected.std()


def test_token_ids_score_as_their_text(decoder: LocalServer, exported_llama: Path):
    _, renderer = open_folder(exported_llama, "onnx")
    with RewardClient(decoder.target) as client:
        digest = client.model_info().tokenizer_digest
        rows = rows_of(renderer, PAIRS)
        prompts = [TokenIds(row.token_ids[:3], digest) for row in rows]
        completions = [TokenIds(row.token_ids[3:], digest) for row in rows]
        assert client.score(prompts, completions).scores() == client.score(PROMPTS, COMPLETIONS).scores()


def failure(client: RewardClient, prompt, completion, **options) -> Failed:
    """What is wrong with the second of three items; the others must not suffer."""
    reply = client.score(["a", prompt, "b"], ["good", completion, "bad"], **options)
    assert isinstance(reply.results[0], Scored)
    assert isinstance(reply.results[2], Scored)
    failed = reply.results[1]
    assert isinstance(failed, Failed)
    assert not hasattr(failed, "score")
    with pytest.raises(ItemsFailed):
        reply.scores()
    return failed


def test_each_bad_item_gets_an_error_of_its_own(client: RewardClient):
    digest = client.model_info().tokenizer_digest
    long = "plan " * 500
    for prompt, completion, code, word in [
        ("hi", "", ItemErrorCode.INVALID, "empty"),
        ("hi", "  ", ItemErrorCode.INVALID, "no tokens"),
        ("hi", long, ItemErrorCode.TOO_LONG, "REJECT"),
        ([Message("system", "be nice")], "ok", ItemErrorCode.INVALID, "chat template"),
        ("hi", TokenIds((5,), digest), ItemErrorCode.INVALID, "one side only"),
        (TokenIds((5,), "f" * 64), TokenIds((5,), "f" * 64), ItemErrorCode.INVALID, "tokenizer"),
        (TokenIds((5,), digest), TokenIds((10**6,), digest), ItemErrorCode.INVALID, "vocabulary"),
        (TokenIds((5,), digest), TokenIds((), digest), ItemErrorCode.INVALID, "empty"),
        (TokenIds((5,) * 100, digest), TokenIds((6,) * 100, digest), ItemErrorCode.TOO_LONG, "never truncated"),
    ]:
        failed = failure(client, prompt, completion)
        assert (failed.code, failed.retryable) == (code, False)
        assert word in failed.message


def test_items_without_content_are_invalid(server: LocalServer):
    with grpc.insecure_channel(server.target) as channel:
        request = reward.ScoreRequest(items=[reward.ScoreItem(), reward.ScoreItem(prompt={"text": "hi"})])
        reply = RewardServiceStub(channel).Score(request, timeout=30)
    assert [result.error.code for result in reply.results] == [reward.ITEM_ERROR_CODE_INVALID] * 2
    assert "no completion" in reply.results[1].error.message


def test_truncation_is_as_asked_and_reported(client: RewardClient):
    long = "plan " * 500
    for side in (Truncation.LEFT, Truncation.RIGHT):
        (result,) = client.score(["an idea"], [long], truncation=side).results
        assert isinstance(result, Scored)
        assert (result.token_count, result.truncated_tokens) == (128, 500 + 5 - 128)
    assert failure(client, long, "idea", truncation=Truncation.RIGHT).code is ItemErrorCode.TOO_LONG


def test_whole_requests_that_are_wrong(server: LocalServer, client: RewardClient):
    with pytest.raises(InvalidArgument, match="at least one item"):
        client.score([], [])
    with pytest.raises(InvalidArgument, match="takes 50"):
        client.score(["a"] * 51, ["b"] * 51)
    with RewardClient(server.target, model="other") as other, pytest.raises(NotFound, match="tiny"):
        other.score(["a"], ["b"])
    with RewardClient(server.target, model="other") as other, pytest.raises(NotFound):
        other.model_info()
    with RewardClient(server.target, revision="0" * 64) as pinned, pytest.raises(FailedPrecondition, match="revision"):
        pinned.score(["a"], ["b"])
    revision = client.model_info().provenance.revision
    with RewardClient(server.target, revision=revision, model="tiny") as pinned:
        assert pinned.score(["a"], ["b"]).scores() == client.score(["a"], ["b"]).scores()


def test_unknown_options_are_refused_by_name(server: LocalServer):
    item = reward.ScoreItem(prompt={"text": "hi"}, completion={"text": "ho"})
    with grpc.insecure_channel(server.target) as channel:
        stub = RewardServiceStub(channel)
        for options, word in [({"truncation": 17}, "truncation 17"), ({"priority": 9}, "priority 9")]:
            with pytest.raises(grpc.RpcError) as caught:
                stub.Score(reward.ScoreRequest(items=[item], options=options), timeout=30)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert word in caught.value.details()


def test_compare_is_the_scaled_difference(client: RewardClient):
    first, second = client.score(["an idea"] * 2, ["honest plan", "brilliant"]).scores()
    comparison = client.compare("an idea", "honest plan", "brilliant")
    assert comparison.difference == pytest.approx(first - second)
    assert comparison.probability == pytest.approx(1 / (1 + math.exp(-0.5 * (first - second))))
    assert (comparison.first.score, comparison.second.score) == (first, second)
    with pytest.raises(ItemsFailed, match=r"second: .*empty"):
        client.compare("an idea", "honest plan", "")


def test_rank_orders_shares_places_and_keeps_errors_apart(client: RewardClient, server: LocalServer):
    completions = ["honest plan", "brilliant", "", "honest plan", "costs come before customers"]
    before = counter(server, 'palate_reward_tokens_total{kind="real"}')
    ranking = client.rank("an idea that no other test has", completions)
    computed = counter(server, 'palate_reward_tokens_total{kind="real"}') - before
    scores = {i: r.scored.score for i, r in enumerate(ranking.results) if isinstance(r, Ranked)}
    assert isinstance(ranking.results[2], Failed)
    assert list(ranking.order) == sorted(scores, key=lambda i: (-scores[i], i))
    assert ranking.best() == ranking.order[0]
    twins = (ranking.results[0], ranking.results[3])
    assert twins[0] == twins[1]
    for index, score in scores.items():
        assert ranking.results[index].rank == 1 + sum(other > score for other in scores.values())
    values = np.array(list(scores.values()))
    z_scores = [ranking.results[i].z_score for i in scores]
    assert np.allclose(z_scores, (values - values.mean()) / values.std())
    counted = {
        c: r.scored.token_count for c, r in zip(completions, ranking.results, strict=True) if isinstance(r, Ranked)
    }
    assert computed == sum(counted.values())  # the duplicate was not computed
    same = client.rank("an idea", ["plan", "plan"])
    assert [(r.rank, r.z_score) for r in same.results if isinstance(r, Ranked)] == [(1, None), (1, None)]
    with pytest.raises(InvalidArgument):
        client.rank("an idea", [])


def test_explain_shows_what_is_read_and_where(client: RewardClient, decoder: LocalServer):
    shown = client.explain("an idea", "honest plan")
    assert shown.tokens[0] == "[CLS]"
    assert shown.rendered_text == "[CLS]an idea[SEP]honest plan[SEP]"
    assert len(shown.tokens) == len(shown.token_ids)
    assert (shown.score_position, shown.transformers_score_position, shown.template_kind) == (0, 0, "pair")
    assert shown.inferred == ()
    with pytest.raises(InvalidArgument, match="empty"):
        client.explain("an idea", "")
    with RewardClient(decoder.target) as chat:
        shown = chat.explain([Message("user", "an idea")], "honest plan")
        assert shown.score_position == shown.transformers_score_position == len(shown.token_ids) - 1
        assert (shown.tokens[0], shown.tokens[-1], shown.template_kind) == ("<s>", "</s>", "chat")


def test_explain_says_where_transformers_would_read(tmp_path: Path):
    from tests.reward_folders import make_llama

    folder = make_llama(tmp_path / "padeos", pad_is_eos=True)
    with start_server("services.reward", folder, "--engine", "fake") as running, RewardClient(running.target) as client:
        shown = client.explain("an idea", "honest plan")
        assert shown.score_position == len(shown.token_ids) - 1
        assert shown.transformers_score_position < shown.score_position
        assert any("end-of-sequence" in item.missing for item in shown.inferred)
        assert client.score(["a"], ["b"]).provenance.engine == "fake"


def test_model_info(client: RewardClient, decoder: LocalServer):
    info = client.model_info()
    assert (info.kind, info.template_kind, info.max_tokens, info.max_items) == ("encoder", "pair", 128, 50)
    assert (info.logit_scale, info.reference_mean, info.reference_std) == (0.5, 1.0, 4.0)
    assert {"rank", "token_ids", "truncation.left"} <= set(info.capabilities)
    with RewardClient(decoder.target) as chat:
        info = chat.model_info()
        assert (info.provenance.model, info.kind, info.reference_mean) == ("chatty", "decoder", None)


async def test_many_callers_at_once_get_their_own_scores(server: LocalServer, client: RewardClient):
    expected = client.score(PROMPTS, COMPLETIONS).scores()
    async with AsyncRewardClient(server.target) as many:
        calls = [many.score(PROMPTS[i:] + PROMPTS[:i], COMPLETIONS[i:] + COMPLETIONS[:i]) for i in range(20)]
        replies = await asyncio.gather(*calls)
    for i, reply in enumerate(replies):
        assert reply.scores() == expected[i:] + expected[:i]


def counter(server: LocalServer, name: str) -> float:
    with urllib.request.urlopen(f"http://{server.metrics_target}/metrics", timeout=10) as page:
        lines = page.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


def test_metrics_count_items_tokens_and_scores(server: LocalServer, client: RewardClient):
    names = ['palate_reward_items_total{outcome="scored"}', 'palate_reward_items_total{outcome="invalid"}',
             "palate_reward_score_count", "palate_reward_batch_rows_count"]  # fmt: skip
    before = [counter(server, name) for name in names]
    client.score(["a", "b", "c"], ["x", "", "y"])
    after = [counter(server, name) for name in names]
    assert [b - a for a, b in zip(before, after, strict=True)][:3] == [2, 1, 2]
    assert after[3] > before[3]
    assert counter(server, "palate_reward_queue_items") == 0


def test_request_that_the_queue_could_never_hold_is_refused(exported_bert: Path):
    flags = ("--max-queue-items", "8")
    with start_server("services.reward", exported_bert, *flags) as running, RewardClient(running.target) as client:
        with pytest.raises(InvalidArgument, match="never holds more than 8"):
            client.score([f"number {n}" for n in range(9)], ["x"] * 9)
        assert len(client.score(["a"] * 9, ["x"] * 9).scores()) == 9  # equal items are one


def test_sigterm_drains_and_exits_with_0(exported_bert: Path):
    with start_server("services.reward", exported_bert) as running:
        with RewardClient(running.target) as client:
            assert len(client.score(["a"], ["b"]).scores()) == 1
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(30) == 0


def test_log_holds_no_text_of_users(exported_bert: Path, tmp_path: Path):
    with start_server("services.reward", exported_bert, "--log-level", "DEBUG") as running:
        with RewardClient(running.target) as client:
            client.score(["xylophone secret"], ["zebra secret"])
            client.score(["xylophone secret"], [""])
        running.stop()
        log = running.log.read_text()
    assert "revision" in log
    assert "secret" not in log


POLICY = {"kind": "policy", "architecture": "decoder", "template_kind": "join"}


@pytest.mark.parametrize(
    ("change", "flags", "message"),
    [
        (lambda folder: shutil.rmtree(folder), (), "not a folder"),
        (lambda folder: (folder / "model.onnx").unlink(), ("--engine", "onnx"), "palate export"),
        (lambda folder: (folder / "tokenizer.json").unlink(), (), "tokenizer.json"),
        (lambda folder: None, ("--max-queue-tokens", "100"), "--max-queue-tokens"),
        (lambda folder: change_json(folder / "palate.json", **POLICY), (), "serve policy"),
    ],
)
def test_what_cannot_be_served_ends_the_process_with_a_message(own_bert: Path, change, flags: tuple, message: str):
    change(own_bert)
    with (
        pytest.raises(ServerStartError, match="exit code 1") as caught,
        start_server("services.reward", own_bert, *flags),
    ):
        pass
    assert message in str(caught.value)


def test_weights_that_give_no_numbers_are_refused_at_start(tmp_path: Path):
    from safetensors.torch import load_file, save_file

    folder = make_bert(tmp_path / "broken")
    tensors = load_file(folder / "model.safetensors")
    tensors["classifier.weight"][:] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ServerStartError, match="not finite"), start_server("services.reward", folder):
        pass


def test_help_and_misspelt_flags_teach():
    command = [sys.executable, "-m", "services.reward"]
    helped = subprocess.run([*command, "--help"], capture_output=True, text=True, timeout=60, check=True)
    assert "--parity-tolerance" in helped.stdout
    wrong = subprocess.run([*command, "--modle", "x"], capture_output=True, text=True, timeout=60, check=False)
    assert wrong.returncode == 2
    assert "did you mean --model" in wrong.stderr
