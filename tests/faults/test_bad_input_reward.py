"""Everything wrong that can be sent to a reward server: each a clear error, and a server that goes on; a full disk."""

import re
import resource
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from safetensors.torch import load_file, save_file

from palate.client import (
    ChannelOptions,
    Failed,
    FailedPrecondition,
    InvalidArgument,
    InvalidInput,
    ItemErrorCode,
    ItemsFailed,
    Message,
    MessageTooLarge,
    NotFound,
    RewardClient,
    Scored,
    TokenIds,
    Truncation,
)
from palate.models.export import export
from palate.v1 import common_pb2 as common
from palate.v1 import reward_service_pb2 as reward
from tests.reward_folders import make_bert, make_llama
from tests.servers import start_server

MODULE = "services.reward"
NORMAL = ("What do you think?", "It is an honest plan.")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_llama(tmp_path_factory.mktemp("reward") / "judge")


@pytest.fixture(scope="module")
def server(folder):
    with start_server(MODULE, folder, "--threads", "1") as running:
        yield running


@pytest.fixture(scope="module")
def normal(server):
    """What a normal call answers before anything wrong was sent."""
    with RewardClient(server.target) as client:
        return normal_score(client)


@pytest.fixture
def client(server, normal):
    """A client; when the test is over, the server must answer a normal call as it did at first."""
    with RewardClient(server.target, timeout=60) as connected:
        yield connected
        assert normal_score(connected) == pytest.approx(normal, abs=1e-4)
        assert "an internal error" not in server.log.read_text()
        assert "a bug in" not in server.log.read_text()


def normal_score(client):
    (score,) = client.score([NORMAL[0]], [NORMAL[1]]).scores()
    return score


def failure_beside_a_score(client, prompt, completion, **options):
    """The error of one wrong item; the right one beside it has its score."""
    reply = client.score([prompt, NORMAL[0]], [completion, NORMAL[1]], **options)
    wrong, right = reply.results
    assert isinstance(right, Scored)
    assert isinstance(wrong, Failed)
    assert not wrong.retryable
    with pytest.raises(ItemsFailed, match="item 0"):
        reply.scores()
    return wrong


def test_nothing_to_score(client):
    with pytest.raises(InvalidArgument, match="nothing to score; send at least one item"):
        client.score([], [])
    with pytest.raises(InvalidArgument, match="nothing to score"):
        client.rank("a", [])
    with pytest.raises(InvalidArgument, match="1025 items in one request; this server takes 1024"):
        client.score(["a"] * 1025, ["b"] * 1025)


def test_an_empty_completion(client):
    for empty in ("", [], TokenIds((), client.model_info().tokenizer_digest)):
        prompt = TokenIds((4,), client.model_info().tokenizer_digest) if isinstance(empty, TokenIds) else "a"
        failed = failure_beside_a_score(client, prompt, empty)
        assert failed.code is ItemErrorCode.INVALID
        assert "the completion is empty" in failed.message
    with pytest.raises(InvalidArgument, match="the completion is empty"):
        client.explain("a", "")
    with pytest.raises(ItemsFailed, match="first: the completion is empty"):
        client.compare("a", "", "b")
    ranking = client.rank("a", ["", "b"])
    assert ranking.order == (1,)
    assert isinstance(ranking.results[0], Failed)


@pytest.mark.parametrize("content", [[], [Message("user", ""), Message("assistant", "")]])
def test_a_conversation_that_says_nothing(client, content):
    """Its template's marks alone would have a score."""
    failed = failure_beside_a_score(client, content, [Message("assistant", "")])
    assert failed.code is ItemErrorCode.INVALID
    assert "the completion is empty" in failed.message
    assert "the completion is empty" in failure_beside_a_score(client, content, []).message


def test_a_prompt_without_messages(client):
    failed = failure_beside_a_score(client, [], "b")
    assert failed.code is ItemErrorCode.INVALID
    assert 'a conversation without messages; where there is nothing to say send an empty text ("")' in failed.message
    assert isinstance(client.score([""], ["b"]).results[0], Scored)
    with pytest.raises(ItemsFailed, match="a conversation without messages"):
        client.compare([], "a", "b")
    with pytest.raises(InvalidArgument, match="a conversation without messages"):
        client.explain([], "b")
    assert client.rank([], ["a", "b"]).order == ()
    ((_, streamed),) = client.score_stream([([], "b")])
    assert isinstance(streamed, Failed)


@pytest.mark.parametrize("pair", [("a", "b\0"), ("a\0", "b"), ([Message("user", "a\0")], "b")])
def test_nul(client, pair):
    assert "NUL" in failure_beside_a_score(client, *pair).message


@pytest.mark.parametrize("where", ["prompt", "completion", "role", "revision"])
def test_lone_surrogates_on_the_wire(server, client, where):
    text = common.Content(text="XXX")
    message = common.ChatMessage(role="XXX", content="a")
    contents = {
        "prompt": (text, common.Content(text="a")),
        "completion": (common.Content(text="a"), text),
        "role": (common.Content(conversation=common.Conversation(messages=[message])), common.Content(text="a")),
        "revision": (common.Content(text="a"), common.Content(text="a")),
    }
    prompt, completion = contents[where]
    request = reward.ScoreRequest(
        items=[reward.ScoreItem(prompt=prompt, completion=completion)],
        options=reward.ScoreOptions(revision="XXX" if where == "revision" else ""),
    )
    raw = request.SerializeToString()
    assert raw.count(b"XXX") == 1
    assert "text that is not UTF-8" in refused(server, "Score", raw.replace(b"XXX", b"\xed\xa0\x80"))


def test_a_client_cannot_send_lone_surrogates(client):
    with pytest.raises(InvalidInput, match=r"completions\[1\] holds a lone surrogate at character 1"):
        client.score(["a", "a"], ["b", "b\ud800"])
    good, bad = client.score_stream([("a", "b"), ("a", "\ud800")])
    if isinstance(good[1], Failed):
        good, bad = bad, good
    assert isinstance(good[1], Scored)
    assert bad[1].code is ItemErrorCode.INVALID
    assert "completion holds a lone surrogate" in bad[1].message


@pytest.mark.parametrize("method", ["Score", "ScoreStream", "Compare", "Rank", "Explain", "GetModelInfo"])
@pytest.mark.parametrize("raw", [b"\xff\xff\xff\xff", b"\x0a\x7f", b"\x0a" * 1000], ids=["tag", "short", "nested"])
def test_malformed_protobuf(server, client, method, raw):
    assert "malformed protobuf" in refused(server, method, raw)


def test_malformed_protobuf_inside_a_stream(server, client):
    options = reward.ScoreStreamRequest(options=reward.ScoreOptions()).SerializeToString()
    assert "malformed protobuf" in refused(server, "ScoreStream", options, b"\x12\x7f")


@pytest.mark.parametrize(("option", "value"), [("truncation", 99), ("truncation", -1), ("priority", 99)])
def test_options_that_no_server_knows(server, client, option, value):
    item = reward.ScoreItem(prompt=common.Content(text="a"), completion=common.Content(text="b"))
    request = reward.ScoreRequest(items=[item], options=reward.ScoreOptions(**{option: value}))
    assert f"{option} {value} is not known" in refused(server, "Score", request.SerializeToString())


def test_a_text_of_a_megabyte(client):
    for text in ("a" * 2**20, "word " * (2**20 // 5), "😀" * 2**18):
        for pair in ((text, "b"), ("a", text)):
            failed = failure_beside_a_score(client, *pair)
            assert failed.code is ItemErrorCode.TOO_LONG
            assert re.search(r"\d{5,} tokens; the model reads 256.*shorten the item", failed.message)
    (cut,) = client.score(["word " * (2**20 // 5)], ["b"], truncation=Truncation.LEFT).results
    assert isinstance(cut, Scored)
    assert cut.token_count == 256
    assert cut.truncated_tokens > 100_000


def test_a_message_over_the_limit(server, client):
    text = "a" * 5 * 2**20
    with pytest.raises(MessageTooLarge, match="the limit is 4194304"):
        client.score([text], ["b"])
    careless = ChannelOptions(max_message_bytes=64 * 2**20, max_attempts=1)
    with (
        RewardClient(server.target, options=careless) as other,
        pytest.raises(InvalidArgument, match="larger than max"),
    ):
        other.score([text], ["b"])


def test_token_ids(client):
    digest = client.model_info().tokenizer_digest
    fine = TokenIds((4, 5), digest)
    for wrong, message in (
        (TokenIds((320,), digest), "outside of the vocabulary of 320"),
        (TokenIds((2**32 - 1,), digest), "outside of the vocabulary"),
        (TokenIds((4,) * 300, digest), "the model reads 256, and ids are never truncated"),
        (TokenIds((4,), "f" * 64), "of tokenizer ffffffffffff, this model's is"),
        (TokenIds((4,), ""), "no digest"),
        ("text", "token ids on one side only"),
    ):
        failed = failure_beside_a_score(client, fine, wrong)
        assert failed.code in (ItemErrorCode.INVALID, ItemErrorCode.TOO_LONG)
        assert message in failed.message


def test_an_unknown_model_or_another_revision(server, client):
    for options, error, message in (
        ({"model": "nobody"}, NotFound, "there is no model 'nobody' here; this server has 'judge'"),
        ({"revision": "f" * 64}, FailedPrecondition, "expects revision 'ffff"),
    ):
        with RewardClient(server.target, **options) as wrong:
            for call in (
                lambda wrong=wrong: wrong.score(["a"], ["b"]),
                lambda wrong=wrong: wrong.compare("a", "b", "c"),
                lambda wrong=wrong: wrong.rank("a", ["b"]),
                lambda wrong=wrong: wrong.explain("a", "b"),
                lambda wrong=wrong: list(wrong.score_stream([("a", "b")])),
            ):
                with pytest.raises(error, match=message):
                    call()


@pytest.mark.parametrize("missing", ["folder", "config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_model(tmp_path, missing):
    path = tmp_path / "model"
    if missing != "folder":
        (make_llama(path) / missing).unlink()
    assert_does_not_start(path, str(path) if missing == "folder" else missing)


def test_a_headless_checkpoint(tmp_path):
    file = make_llama(tmp_path / "model") / "model.safetensors"
    tensors = load_file(file)
    del tensors["score.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    assert_does_not_start(tmp_path / "model", "head")


def test_a_truncated_checkpoint(tmp_path):
    file = make_llama(tmp_path / "model") / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    assert_does_not_start(tmp_path / "model", "model.safetensors is not a whole safetensors file")


def test_a_port_in_use(server, client, folder):
    port = server.target.rpartition(":")[2]
    assert_does_not_start(folder, f"cannot listen on 127.0.0.1:{port}", "--port", port)


@pytest.mark.parametrize("device", ["banana", "cuda:x", "meta"])
def test_a_device_that_nobody_knows(folder, device):
    assert_does_not_start(folder, f"--device {device!r} is no device; it can be auto, cpu, cuda", "--device", device)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("modle: {folder}", "modle is unknown; did you mean model?"),
        ("model: {folder}\nmax_item: 5", "max_item is unknown; did you mean max_items?"),
        ("model: {folder}\nmax_items: many", "max_items: Input should be a valid integer"),
        ("model: [", "is not YAML"),
    ],
)
def test_a_configuration_with_a_mistake(folder, tmp_path, content, message):
    file = tmp_path / "reward.yaml"
    file.write_text(content.format(folder=folder))
    result = subprocess.run(
        [sys.executable, "-m", MODULE, "--config", str(file)], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def assert_does_not_start(folder, message, *flags):
    port = () if "--port" in flags else ("--port", "0")
    command = [sys.executable, "-m", MODULE, "--metrics-port", "0", "--model", str(folder), *port, *flags]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 1
    assert message in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return make_bert(tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture(scope="module")
def onnx_bytes(bert, tmp_path_factory):
    """Size of the graph that the export of `bert` writes."""
    return (export(bert, tmp_path_factory.mktemp("exported") / "bert").path / "model.onnx").stat().st_size


@pytest.mark.parametrize("full_at", ["checkpoint", "graph"])
def test_a_full_disk_at_export(bert, onnx_bytes, tmp_path, full_at):
    """On a file system that is too small, or, where none can be mounted, under a limit of the size of files."""
    copied = sum(file.stat().st_size for file in bert.iterdir())
    largest = max(file.stat().st_size for file in bert.iterdir())
    room = copied // 2 if full_at == "checkpoint" else copied + 8 * 4096 + onnx_bytes // 2
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", str(disk)]
    mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    limit = None if mounted else (largest // 2 if full_at == "checkpoint" else (largest + onnx_bytes) // 2)
    try:
        result = exported(bert, disk / "served", limit)
        assert result.returncode == 2, result.stderr
        assert "palate export" in result.stderr
        assert "cannot be written" in result.stderr
        assert "the disk is full" in result.stderr or not mounted
        assert "Traceback" not in result.stderr
        assert list(disk.iterdir()) == []  # and nothing is left behind
    finally:
        if mounted:
            subprocess.run(["umount", str(disk)], check=True)
    assert exported(bert, disk / "served", None).returncode == 0  # with room it works


def exported(source: Path, target: Path, file_bytes: int | None) -> subprocess.CompletedProcess[str]:
    """`palate export` as a process that may write files of so many bytes."""

    def limited() -> None:
        if file_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))

    code = "from palate.models.export_command import app; app()"
    command = [sys.executable, "-c", code, "--model", str(source), "--out", str(target)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, preexec_fn=limited)


def refused(server, method, raw, *more):
    """Sends bytes as they are; returns the message of INVALID_ARGUMENT."""
    with grpc.insecure_channel(server.target) as channel:
        call = channel.stream_stream(f"/palate.v1.RewardService/{method}")  # on the wire all kinds of calls are alike
        with pytest.raises(grpc.RpcError) as refusal:
            list(call(iter([raw, *more]), timeout=30))
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    return refusal.value.details()
