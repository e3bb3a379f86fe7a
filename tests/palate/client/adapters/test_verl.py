"""The verl adapter, found and called as verl 0.9 does it; verl itself is not here."""

import importlib
import importlib.util
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest

from palate.client import ItemsFailed, Message
from palate.client.adapters import verl
from palate.client.adapters.endpoint import AdapterError

TALK = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "?"}]


def from_package():
    """``path=pkg://palate.client.adapters.verl``"""
    return importlib.import_module("palate.client.adapters.verl")


def from_file():
    """``path=.../verl.py``: executed under a made-up name, and not registered."""
    spec = importlib.util.spec_from_file_location("custom_module_123", verl.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def call(compute_score, completion, **extra_info):
    """Its arguments as verl's reward managers give them, by name."""
    return compute_score(
        data_source="talks",
        solution_str=completion,
        ground_truth="unused",
        extra_info={"num_turns": None, "rollout_reward_scores": {}} | extra_info,
        reward_router_address=None,
        reward_model_tokenizer=None,
    )


@pytest.mark.parametrize("load", [from_package, from_file])
def test_called_by_many_threads_one_completion_at_a_time(load, target, client, environment):
    environment(target=target)
    module = load()
    assert hasattr(module, "compute_score")
    completions = [f"Answer {number}." for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        scores = list(pool.map(lambda c: call(module.compute_score, c, prompt="Why?"), completions))
    assert scores == client.score(["Why?"] * 40, completions).scores()
    assert all(type(score) is float for score in scores)


def test_a_prompt_of_messages_under_another_key(target, client, environment, monkeypatch):
    environment(target=target)
    monkeypatch.setenv(verl.PROMPT_KEY, "talk")
    (expected,) = client.score([[Message(**message) for message in TALK]], ["Yes."]).scores()
    assert call(verl.compute_score, "Yes.", talk=TALK) == expected
    assert call(verl.reward_function(target, prompt_key="talk"), "Yes.", talk=TALK) == expected


def test_it_travels_to_reward_workers(target):
    compute_score = pickle.loads(pickle.dumps(verl.reward_function(target)))
    assert type(call(compute_score, "Yes.", prompt="Why?")) is float


def test_without_a_prompt_nothing_is_scored(target):
    with pytest.raises(AdapterError, match="has no 'prompt' but index, num_turns, rollout_reward_scores; put the"):
        call(verl.reward_function(target), "Yes.", index=3)
    with pytest.raises(AdapterError, match="has no 'prompt' but nothing"):
        verl.reward_function(target)(data_source="talks", solution_str="Yes.", ground_truth="")


def test_a_completion_without_a_score_raises(target):
    with pytest.raises(ItemsFailed, match="INVALID"):
        call(verl.reward_function(target), "", prompt="Why?")


def test_a_missing_address_shows_when_the_function_is_looked_up(environment):
    environment()
    with pytest.raises(AdapterError, match="PALATE_REWARD_TARGET is not set"):
        hasattr(from_file(), "compute_score")
    assert not hasattr(from_file(), "compute_scores")
