"""The OpenRLHF adapter, found and called as OpenRLHF 0.11 does it; OpenRLHF itself is not here."""

import asyncio
import importlib.util

import pytest
import torch

from palate.client import ItemsFailed
from palate.client.adapters import openrlhf
from palate.client.adapters.endpoint import AdapterError


def loaded():
    """The file, executed under OpenRLHF's name for it, and not registered."""
    spec = importlib.util.spec_from_file_location("reward_func", openrlhf.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def test_called_in_threads_one_completion_at_a_time(target, client, environment, monkeypatch):
    environment(target=target)
    monkeypatch.setenv(openrlhf.END_TOKEN, "</s>")
    reward_func = loaded().reward_func
    completions = [f"Answer {number}." for number in range(20)]
    calls = [asyncio.to_thread(reward_func, [f"Why?{c}</s>"], ["Why?"], ["unused"]) for c in completions]
    replies = await asyncio.gather(*calls)
    expected = client.score(["Why?"] * 20, completions).scores()
    for reply, score in zip(replies, expected, strict=True):
        assert reply["rewards"].dtype == torch.float32
        # OpenRLHF puts what it got into a tensor of one.
        assert torch.tensor([reply["rewards"]]).tolist() == [score]
        assert torch.equal(reply["scores"], reply["rewards"])


def test_a_batch(target, client):
    rewards = openrlhf.reward_function(target)(["a b", "c d"], ["a", "c"], labels=["", ""], more=1)["rewards"]
    assert rewards.tolist() == client.score(["a", "c"], [" b", " d"]).scores()


@pytest.mark.parametrize(
    ("query", "completion"), [("Why?No.</s>", "No."), ("Why?No.", "No."), ("Why?</s>No.</s></s>", "</s>No.</s>")]
)
def test_only_the_last_end_token_is_cut(target, client, query, completion):
    rewards = openrlhf.reward_function(target, end_token="</s>")([query], ["Why?"], [""])["rewards"]
    assert rewards.tolist() == client.score(["Why?"], [completion]).scores()


@pytest.mark.parametrize("query", [" Why?No.", "hy?No.", "<s>Why?No."])
def test_a_query_that_does_not_begin_with_its_prompt_is_refused(target, query):
    with pytest.raises(AdapterError, match="does not begin with its prompt") as caught:
        openrlhf.reward_function(target)([query], ["Why?"], [""])
    assert "Why" not in str(caught.value)


def test_a_completion_without_a_score_raises(target):
    with pytest.raises(ItemsFailed, match="item 1: INVALID"):
        openrlhf.reward_function(target)(["a b", "c"], ["a", "c"], ["", ""])


def test_a_missing_address_shows_when_the_function_is_looked_up(environment):
    environment()
    with pytest.raises(AdapterError, match="PALATE_REWARD_TARGET is not set"):
        _ = loaded().reward_func
    assert not hasattr(loaded(), "reward_function_of")
