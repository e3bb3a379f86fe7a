"""Completions of a prompt that the policy sends in parts, late, or not at all."""

from types import SimpleNamespace

import grpc
import pytest

from tests.trainer.scripted_policy import VERSION, scripted
from trainer.best_of_n.config import BestOfNConfig
from trainer.best_of_n.drawing import Asked, Failing, draw, seed_of
from trainer.data.prompts import PromptRow

ASKED = Asked(0, PromptRow("a plan", ""))
CONFIG = BestOfNConfig(policy="", prompts="p", out="o", proxy="a", gold="b", samples=8, seed=3)
SEEDS = [seed_of(ASKED, index, CONFIG.seed) for index in range(CONFIG.samples)]


def drawn(client, most=100):
    info = SimpleNamespace(policy_version=VERSION, max_prompts=most, max_completions=100)
    return [completion.seed for completion in draw(client, ASKED, CONFIG, info)]


def test_what_fails_or_is_late_once_is_asked_for_again_and_alone():
    failing = [{SEEDS[1], SEEDS[2]}, {SEEDS[2]}, {SEEDS[2]}, set()]
    ends = [grpc.StatusCode.INTERNAL, grpc.StatusCode.DEADLINE_EXCEEDED]
    with scripted(failing, ends) as (client, servicer):
        assert drawn(client) == SEEDS
    assert servicer.calls == [SEEDS, SEEDS[1:3], [SEEDS[2]], [SEEDS[2]]]


@pytest.mark.parametrize("code", [grpc.StatusCode.INTERNAL, grpc.StatusCode.DEADLINE_EXCEEDED])
def test_what_always_fails_or_is_late_ends_after_a_few_tries(code):
    expected = pytest.raises(Failing, match=r"the engine failed on 1.*\(3 attempts\)")
    with scripted([{SEEDS[5]}], [code]) as (client, servicer), expected:
        drawn(client)
    assert servicer.calls == [SEEDS, [SEEDS[5]], [SEEDS[5]]]


def test_an_answer_that_ends_too_soon_is_no_completion():
    with scripted([{SEEDS[5]}], [None]) as (client, _), pytest.raises(Failing, match="without 1 of 8 completions"):
        drawn(client)


def test_a_call_asks_for_no_more_than_the_policy_says_it_takes_and_what_comes_is_the_same():
    with scripted([set()]) as (client, servicer):
        assert drawn(client, most=3) == SEEDS
    assert servicer.calls == [SEEDS[:3], SEEDS[3:6], SEEDS[6:]]
