"""Arguments of no use: each is an `InvalidInput` that names it, from every method, and nothing is sent."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from palate.client import (
    AsyncPolicyClient,
    AsyncRewardClient,
    ChannelOptions,
    InvalidInput,
    Message,
    PalateError,
    PolicyClient,
    PolicyVersion,
    RewardClient,
    SamplingParams,
    TensorSpec,
    Tls,
    TokenIds,
)
from palate.client.policy_requests import generate_request

NOWHERE = "127.0.0.1:1"
BAD = "fine \ud800"
Wrong = tuple[str, Callable[[Any], Any], str]

REWARD: list[Wrong] = [
    ("texts for lists", lambda c: c.score("abc", "def"), "prompts is a value of type str; give a list"),
    ("a text for a list", lambda c: c.score(["abc"], "d"), "completions is a value of type str; give a list"),
    ("a surrogate", lambda c: c.score(["a", BAD], ["b", "c"]), r"prompts\[1\] holds a lone surrogate at character 5"),
    ("another", lambda c: c.score(["a", "a"], ["b", BAD]), r"completions\[1\] holds a lone surrogate"),
    ("in a message", lambda c: c.score([[Message("user", BAD)]], ["b"]), r"prompts\[0\]\[0\]\.content holds a lone"),
    ("in a role", lambda c: c.score([[Message(BAD, "a")]], ["b"]), r"prompts\[0\]\[0\]\.role holds a lone surrogate"),
    ("in a digest", lambda c: c.score([TokenIds((1,), BAD)], ["b"]), r"prompts\[0\]\.tokenizer_digest holds a lone"),
    ("None", lambda c: c.score(["a", None], ["b", "c"]), r"prompts\[1\] is None; give a list of Message, or a text"),
    ("a number", lambda c: c.score([3], ["b"]), r"prompts\[0\] is a value of type int"),
    ("bytes", lambda c: c.score(["a"], [b"b"]), r"completions\[0\] is bytes; give text, e\.g\. value\.decode"),
    ("a message alone", lambda c: c.score([Message("user", "a")], ["b"]), r"prompts\[0\] is a value of type Message"),
    ("texts as messages", lambda c: c.score([["a"]], ["b"]), r"prompts\[0\]\[0\] is a value of type str; give a Mess"),
    ("dicts", lambda c: c.score([[{"role": "user"}]], ["b"]), r"prompts\[0\]\[0\] is a value of type dict; give a Mes"),
    ("a set", lambda c: c.score({"a"}, ["b"]), "prompts is a set, which has no order"),
    ("a dict", lambda c: c.score({"a": "b"}, ["b"]), "prompts is a value of type dict"),
    (
        "a negative id",
        lambda c: c.score([TokenIds((4, -1), "d")], ["b"]),
        r"prompts\[0\]\.ids\[1\] is -1; give a whole",
    ),
    (
        "a broken id",
        lambda c: c.score([TokenIds((1.5,), "d")], ["b"]),
        r"prompts\[0\]\.ids\[0\] is a value of type float",
    ),
    ("ids as text", lambda c: c.score([TokenIds("12", "d")], ["b"]), r"prompts\[0\]\.ids is a value of type str"),
    ("ids as bytes", lambda c: c.score([TokenIds(b"1234", "d")], ["b"]), r"prompts\[0\]\.ids is a value of type bytes"),
    ("truncation", lambda c: c.score(["a"], ["b"], truncation="left"), r"truncation is .* one of .*Truncation\.LEFT"),
    ("priority", lambda c: c.score(["a"], ["b"], priority=3), r"priority is .* one of Priority\.LOW"),
    ("timeout", lambda c: c.score(["a"], ["b"], timeout="3"), "timeout is a value of type str; give a number"),
    ("no end", lambda c: c.score(["a"], ["b"], timeout=float("inf")), "timeout is inf; give seconds"),
    ("no time", lambda c: c.score(["a"], ["b"], timeout=0), "timeout is 0; give seconds above 0"),
    ("time gone", lambda c: c.rank("a", ["b"], timeout=-0.5), "timeout is -0.5; give seconds above 0"),
    ("no number of seconds", lambda c: c.model_info(timeout=float("nan")), "timeout is nan; give seconds above 0"),
    ("too long", lambda c: c.score(["a"], ["b"], timeout=1e30), r"timeout is 1e\+30; give seconds"),
    ("compare", lambda c: c.compare("a", BAD, "b"), "first holds a lone surrogate"),
    ("compare lists", lambda c: c.compare("a", "b", ["c"]), r"second\[0\] is a value of type str; give a Message"),
    ("rank a text", lambda c: c.rank("a", "completion"), "completions is a value of type str; give a list of texts"),
    ("rank", lambda c: c.rank(BAD, ["b"]), "prompt holds a lone surrogate"),
    ("explain", lambda c: c.explain("a", None), "completion is None"),
    ("a stream of letters", lambda c: c.score_stream("ab"), "pairs is a value of type str; give a list of pairs"),
    (
        "a stream of texts",
        lambda c: drained(c.score_stream(["ab", "cd"])),
        r"pairs\[0\] is a value of type str; give a",
    ),
    ("a single pair", lambda c: drained(c.score_stream(("p", "c"))), r"pairs\[0\] is a value of type str"),
    (
        "triples",
        lambda c: drained(c.score_stream([("p", "c", 1)])),
        r"pairs\[0\] is a value of type tuple; give a pair",
    ),
    ("nothing", lambda c: c.score_stream(None), "pairs is None"),
    ("window", lambda c: c.score_stream([], window=-1), "window is -1; give a whole number from 1"),
    ("patience", lambda c: c.score_stream([], patience=-1), "patience is -1; give seconds"),
    ("patience in words", lambda c: c.score_stream([], patience="long"), "patience is a value of type str"),
    ("time per item", lambda c: c.score_stream([], timeout_per_item=0), "timeout_per_item is 0; give seconds above 0"),
]

PIN = PolicyVersion("run", 1, 2, "d")


def sampled(**changes: Any) -> Callable[[Any], Any]:
    return lambda c: c.generate(["a"], sampling=replace(SamplingParams(), **changes))


SAMPLING: list[Wrong] = [
    ("a text", lambda c: c.generate("abc"), "prompts is a value of type str; give a list of texts"),
    ("token by token", lambda c: c.generate_tokens("abc"), "prompts is a value of type str; give a list of texts"),
    ("a surrogate", lambda c: c.generate(["a", BAD]), r"prompts\[1\] holds a lone surrogate"),
    (
        "completions",
        lambda c: c.generate(["a"], completions_per_prompt=-1),
        "completions_per_prompt is -1; give a whole",
    ),
    (
        "True",
        lambda c: c.generate(["a"], completions_per_prompt=True),
        "completions_per_prompt is a value of type bool",
    ),
    ("tokens", sampled(max_new_tokens=-5), "max_new_tokens is -5; give a whole number from 0 to 4294967295"),
    ("half a token", sampled(max_new_tokens=1.5), "max_new_tokens is a value of type float"),
    ("top_k", sampled(top_k=2**32), "top_k is 4294967296"),
    ("top_p", sampled(top_p="0.9"), "top_p is a value of type str; give a number"),
    ("temperature", sampled(temperature=None), "temperature is None; give a number"),
    ("stop", sampled(stop="END"), "stop is a value of type str; give a list of texts"),
    ("one stop", sampled(stop=("a", BAD)), r"stop\[1\] holds a lone surrogate"),
    ("ignore_eos", sampled(ignore_eos=1), "ignore_eos is a value of type int; give True or False"),
    ("sampling", lambda c: c.generate(["a"], sampling={"top_k": 3}), "sampling is .* give a SamplingParams"),
    ("a seed", lambda c: c.generate(["a"], seeds=3), "seeds is a value of type int; give a list of numbers"),
    ("a negative seed", lambda c: c.generate(["a"], seeds=[-1]), r"seeds\[0\] is -1"),
    ("seeds", lambda c: c.generate(["a"], seeds=[1, 2]), "2 seeds for 1 prompts"),
    ("no time", lambda c: c.generate(["a"], timeout=0), "timeout is 0; give seconds above 0"),
    ("no time for tokens", lambda c: c.generate_tokens(["a"], timeout=-1), "timeout is -1; give seconds above 0"),
    ("pin", lambda c: c.generate(["a"], required_policy_version="x"), "required_policy_version is .*PolicyVersion"),
    ("letters", lambda c: c.compute_logprobs("ab", tokenizer_digest="d"), "sequences is a value of type str"),
    ("ids", lambda c: c.compute_logprobs([((1,), (-2,))], tokenizer_digest="d"), r"sequences\[0\]\[1\]\[0\] is -2"),
    ("no pair", lambda c: c.compute_logprobs([(1, 2, 3)], tokenizer_digest="d"), r"sequences\[0\] is .* give a pair"),
    ("digest", lambda c: c.compute_logprobs([], tokenizer_digest=None), "tokenizer_digest is None; give a str"),
]

PUBLISHING: list[Wrong] = [
    ("run", lambda c: c.acquire_publisher(7, 1), "run_id is a value of type int; give a str"),
    ("incarnation", lambda c: c.acquire_publisher("run", -1), "incarnation is -1"),
    ("token", lambda c: c.commit_weights(-1, "x"), "fencing_token is -1"),
    ("staging", lambda c: c.commit_weights(1, None), "staging_id is None"),
    ("interrupt", lambda c: c.commit_weights(1, "x", interrupt="yes"), "interrupt is a value of type str"),
    ("step", lambda c: c.revert_weights(1, replace(PIN, step=-1)), r"expected_current\.step is -1"),
    ("no version", lambda c: c.revert_weights(1, None), "expected_current is None; give a PolicyVersion"),
    ("abort", lambda c: c.abort_weights(1, BAD), "staging_id holds a lone surrogate"),
    ("tensors", lambda c: c.stage_weights(1, PIN, "ab", []), "tensors is a value of type str"),
    (
        "shape",
        lambda c: c.stage_weights(1, PIN, [TensorSpec("w", "F32", (-1,), 4, "")], []),
        r"tensors\[0\]\.shape is -1",
    ),
]

MAKING: list[tuple[str, Callable[[], Any], str]] = [
    ("timeout", lambda: RewardClient(NOWHERE, timeout=0), "timeout is 0; give seconds above 0"),
    ("no timeout", lambda: PolicyClient(NOWHERE, timeout=None), "timeout is None; give a number"),
    ("model", lambda: RewardClient(NOWHERE, model=None), "model is None; give a str"),
    ("revision", lambda: RewardClient(NOWHERE, revision=BAD), "revision holds a lone surrogate"),
    ("options", lambda: RewardClient(NOWHERE, options={}), "options is .* give a ChannelOptions"),
    ("attempts", lambda: ChannelOptions(max_attempts=-3), "max_attempts is -3; give a whole number from 1"),
    ("message bytes", lambda: ChannelOptions(max_message_bytes=2**40), "max_message_bytes is 1099511627776; give"),
    ("buffer", lambda: ChannelOptions(retry_buffer_bytes="1"), "retry_buffer_bytes is a value of type str"),
    ("a line as token", lambda: ChannelOptions(token="secret\n"), r"token .* a line\'s end around it; strip\(\) it"),
    ("an umlaut in a token", lambda: ChannelOptions(token="secrät"), "token is not printable ASCII"),
    ("bytes as token", lambda: ChannelOptions(token=b"secret"), "token is a value of type bytes; give a str"),
    ("tls", lambda: ChannelOptions(tls=True), "tls is a value of type bool; give a Tls"),
    ("a path for PEM", lambda: Tls(ca="ca.pem"), r"ca is no bytes; .*read_bytes\(\)"),
    ("half of a pair", lambda: Tls(certificate=b"x"), "certificate and key go together"),
]


def drained(results: Any) -> Any:
    return list(results) if hasattr(results, "__next__") else awaited(results)


async def awaited(results: Any) -> list[Any]:
    return [each async for each in results]


def check(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as refusal:
        call()
    assert isinstance(refusal.value, PalateError)
    assert isinstance(refusal.value, ValueError)
    assert "fine" not in str(refusal.value)
    assert "secret" not in str(refusal.value)
    assert refusal.value.__cause__ is None


@pytest.mark.parametrize(("call", "message"), [w[1:] for w in REWARD], ids=[w[0] for w in REWARD])
def test_the_reward_client(call, message):
    with RewardClient(NOWHERE) as client:
        check(lambda: call(client), message)


@pytest.mark.parametrize(
    ("call", "message"),
    [w[1:] for w in SAMPLING + PUBLISHING],
    ids=[w[0] for w in SAMPLING + PUBLISHING],
)
def test_the_policy_client(call, message):
    with PolicyClient(NOWHERE) as client:
        check(lambda: call(client), message)


@pytest.mark.parametrize(
    ("kind", "call", "message"),
    [(AsyncRewardClient, *w[1:]) for w in REWARD] + [(AsyncPolicyClient, *w[1:]) for w in SAMPLING],
    ids=[w[0] for w in REWARD + SAMPLING],
)
def test_the_awaited_clients(kind, call, message):
    async def run() -> None:
        async with kind(NOWHERE) as client:
            result = call(client)
            if asyncio.iscoroutine(result):
                await result

    check(lambda: asyncio.run(run()), message)


@pytest.mark.parametrize(("make", "message"), [w[1:] for w in MAKING], ids=[w[0] for w in MAKING])
def test_making_a_client(make, message):
    check(make, message)


def test_iterables_that_are_lists_but_in_name():
    """A generator, or what counts itself by `__index__`, is as good as a list and an int."""

    class Three:
        def __index__(self) -> int:
            return 3

    sampling = SamplingParams()
    meant = generate_request(["a", "b"], sampling, 3, [1, 2], None)
    assert generate_request((text for text in ["a", "b"]), sampling, Three(), iter([1, 2]), None) == meant
    assert (len(meant.prompts), meant.completions_per_prompt) == (2, 3)
