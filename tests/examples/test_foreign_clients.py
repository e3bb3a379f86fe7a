"""The example clients in other languages against real services, with a token and with TLS: all are told the same."""

import json
import os
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from benchmarks.protected import Protection, make_protection, token_of
from palate.client import ChannelOptions, PolicyClient, RewardClient, SamplingParams
from palate.local_server import local_server
from palate.models.export import export
from tests.examples.toolchains import CLIENTS, buf, java_build, node_client
from tests.tiny_models import make_tiny_policy, make_tiny_reward

TOKEN = token_of("trainer")
PROMPT = "What do you think of my business idea?"
COMPLETIONS = ["Brilliant!", "Work out the cost per loaf first."]


@dataclass(frozen=True)
class Answers:
    """What the two services say to the one conversation that every example has with them."""

    scores: list[float]
    order: list[int]
    revision: str
    token_ids: list[int]


@dataclass(frozen=True)
class Pair:
    """A reward and a policy service, and what a client must have in its environment to reach them."""

    targets: tuple[str, str]
    environment: dict[str, str]
    answers: Answers


@dataclass(frozen=True)
class Example:
    """How to run a client, and how to read what it prints."""

    command: list[str]
    environment: dict[str, str]
    read: Callable[[str], Answers]
    speaks_tls: bool = True
    uses_reflection: bool = False


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    make_tiny_policy(folder / "policy", 0)
    export(make_tiny_reward(folder / "reward", "encoder", 0), folder / "served")
    return folder


@pytest.fixture(scope="module")
def pairs(folders, tmp_path_factory):
    protection = make_protection(tmp_path_factory.mktemp("protection"))
    with ExitStack() as stack:
        yield {
            "plaintext": start_pair(stack, folders, protection.token_flags, None),
            "tls": start_pair(stack, folders, protection.token_flags + protection.tls_flags, protection),
        }


def start_pair(stack: ExitStack, folders: Path, flags: list[str], tls: Protection | None) -> Pair:
    models = {"services.reward": "served", "services.policy": "policy"}
    commands = [["-m", module, "--model", str(folders / name), "--threads", "1"] for module, name in models.items()]
    options = ChannelOptions(tls=tls and tls.tls, token=TOKEN)
    servers = [stack.enter_context(local_server([*command, *flags], probe_tls=options.tls)) for command in commands]
    environment = {"PALATE_TOKEN": TOKEN} | ({} if tls is None else {"PALATE_CA": str(tls.ca)})
    targets = (servers[0].target, servers[1].target)
    return Pair(targets, environment, answers_to_python(targets, options))


@pytest.fixture(params=["plaintext", "tls"])
def pair(request, pairs, example):
    if request.param == "tls" and not example.speaks_tls:
        pytest.skip("the Java example speaks plaintext: Debian's Netty is built without ALPN")
    return pairs[request.param]


def answers_to_python(targets: tuple[str, str], options: ChannelOptions) -> Answers:
    with RewardClient(targets[0], options=options) as reward, PolicyClient(targets[1], options=options) as policy:
        ranking = reward.rank(PROMPT, COMPLETIONS)
        scores = reward.score([PROMPT] * 2, COMPLETIONS).scores()
        (drawn,) = policy.generate(["Once upon a time"], seeds=[1], sampling=SamplingParams(max_new_tokens=8))
    return Answers(scores, list(ranking.order), ranking.provenance.revision, list(drawn.token_ids))


def answers_in_lines(printed: str) -> Answers:
    """Those of the Node and the Java client."""
    lines = [line.split() for line in printed.splitlines()]
    (order,) = (line[1:] for line in lines if line[:1] == ["order"])
    (completion,) = (line for line in lines if line[:1] == ["completion"])
    assert completion[1] == "FINISH_REASON_LENGTH"
    return Answers(
        [float(line[1]) for line in lines if line[:1] == ["score"]],
        [int(index) for index in order[: order.index("revision")]],
        order[-1],
        [int(token) for token in completion[3:]],
    )


def answers_in_json(printed: str) -> Answers:
    """Those of `buf curl`: one JSON document per reply."""
    documents, decoder, rest = [], json.JSONDecoder(), printed.strip()
    while rest:
        document, end = decoder.raw_decode(rest)
        documents.append(document)
        rest = rest[end:].lstrip()
    scored, ranked, event, summary = documents
    assert summary["summary"]["completions"] == 1
    return Answers(
        [result["scored"].get("score", 0.0) for result in scored["results"]],
        ranked["order"],
        ranked["provenance"]["revision"],
        event["completion"]["tokenIds"],
    )


@pytest.fixture(scope="module", params=["node", "java", "buf-curl"])
def example(request, tmp_path_factory):
    work = tmp_path_factory.mktemp(request.param)
    if request.param == "node":
        return Example(["node", str(node_client(work))], {}, answers_in_lines)
    if request.param == "java":
        environment = {"PALATE_JAVA_BUILD": str(java_build(work))}
        return Example([str(CLIENTS / "java" / "run.sh")], environment, answers_in_lines, speaks_tls=False)
    return Example(
        [str(CLIENTS / "buf-curl" / "client.sh")], {"BUF": str(buf(work))}, answers_in_json, uses_reflection=True
    )


def run(example: Example, pair: Pair, **changes: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | example.environment | pair.environment | changes
    command = [*example.command, *pair.targets]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, encoding="utf-8")


def test_scores_ranks_and_generates(example, pair):
    done = run(example, pair)
    assert done.returncode == 0, done.stderr
    found = example.read(done.stdout)
    assert found.scores == pytest.approx(pair.answers.scores, abs=1e-4)
    assert found.order == pair.answers.order
    assert found.token_ids == pair.answers.token_ids
    assert pair.answers.revision.startswith(found.revision)
    assert len(found.revision) >= 12


@pytest.mark.parametrize(
    ("targets", "status"), [(None, "unauthenticated"), (("127.0.0.1:1", "127.0.0.1:1"), "unavailable")]
)
def test_says_what_is_wrong_and_fails(example, pairs, targets, status):
    pair = pairs["plaintext"]
    done = run(example, replace(pair, targets=targets or pair.targets), PALATE_TOKEN="of somebody else")
    assert done.returncode == 1
    assert done.stdout == ""
    # With reflection it asks what there is before it calls, and says no more than that it was not told.
    assert ("failed to find service" if example.uses_reflection else status) in done.stderr.lower()
