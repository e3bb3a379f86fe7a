"""Several rewards at once: local functions and penalties, and a failure of one that fails the item."""

import hashlib
import multiprocessing
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from palate.client.types import FinishReason, PolicyVersion, VersionSpan
from trainer.ppo.combination import Share
from trainer.ppo.errors import RewardFunctionBroken, RewardFunctionUnusable, ScoresFailed
from trainer.ppo.patience import Patience
from trainer.ppo.reward_functions import FunctionScorer, FunctionSettings, PenaltyScorer, format_penalty, length_penalty
from trainer.ppo.rewards import ScoreScale
from trainer.ppo.scoring import Component, Scorer
from trainer.types import ComponentScore, DropCause, DroppedRollout, Rollout, ScoredRollout

HERE = "tests.trainer.ppo.reward_functions_for_tests"
VERSION = PolicyVersion("run", 1, 0, "digest")


def rollout(text, tokens=3):
    ids = tuple(range(tokens))
    return Rollout("a prompt", text, (1,), ids, (-1.0,) * tokens, FinishReason.STOP, (VersionSpan(0, VERSION),), 0)


@contextmanager
def scorer_of(*components, scales=None):
    scorer = Scorer([Component(Share(*share), source) for share, source in components], scales or {})
    yield scorer
    scorer.close()


@pytest.fixture
def function():
    """Makes scorers of the functions beside this file; their processes are ended."""
    with ExitStack() as stack:

        def make(name, seconds=60.0, tries=2, drop=True):
            source = FunctionScorer(name, FunctionSettings(seconds, Patience(tries), drop))
            stack.callback(source.close)
            return source

        yield make


def test_a_local_function_is_called_with_texts_and_known_by_its_file(function):
    source = function(f"{HERE}:words")
    assert [each.score for each in source.score([rollout("one"), rollout("one two")])] == [1.0, 2.0]
    file = Path(__file__).with_name("reward_functions_for_tests.py")
    assert source.revision == hashlib.sha256(file.read_bytes()).hexdigest()


def test_what_is_no_finite_number_is_a_failure_and_never_a_score(function):
    found = function(f"{HERE}:wild").score([rollout("x")] * 6)
    assert [type(each) for each in found] == [ScoredRollout] + [DroppedRollout] * 4 + [ScoredRollout]
    assert {each.cause for each in found[1:5]} == {DropCause.FAILED}
    assert [each.message for each in found[1:5]] == [
        "the function gave nan",
        "the function gave inf",
        "the function gave NoneType, no number",
        "the function gave str, no number",
    ]


def test_a_function_that_raises_fails_its_items_and_tells_no_text(function):
    found = function(f"{HERE}:broken").score([rollout("secret"), rollout("other")])
    assert {each.cause for each in found} == {DropCause.FAILED}
    assert all("KeyError in reward_functions_for_tests.py, line" in each.message for each in found)
    assert "secret" not in found[0].message


def test_a_function_that_gives_another_number_of_values_stops_the_run(function):
    with pytest.raises(RewardFunctionBroken, match="1 values for 2 completions"):
        function(f"{HERE}:short").score([rollout("a"), rollout("b")])


def test_a_function_that_hangs_is_ended_and_its_items_fall_out(function):
    """It never lets go of the interpreter, so nothing but the end of its process helps."""
    source = function(f"{HERE}:stuck", seconds=0.1)
    found = source.score([rollout("a"), rollout("b")])
    assert {(type(each), each.cause) for each in found} == {(DroppedRollout, DropCause.EXPIRED)}
    assert found[0].message == "the function did not answer within 0.1 s (2 attempts)"
    assert not multiprocessing.active_children()


def test_a_function_that_is_late_is_called_again(function, tmp_path):
    source = function(f"{HERE}:late_once", seconds=1.0, tries=30)
    assert [each.score for each in source.score([rollout(str(tmp_path / "called"))])] == [1.0]


def test_a_function_that_ends_its_process_does_not_take_the_trainer_along(function):
    source = function(f"{HERE}:ending")
    for _ in range(2):
        (found,) = source.score([rollout("a")])
        assert found.cause is DropCause.FAILED
        assert found.message == "the function ended its process with exit code 7 (2 attempts)"


def test_where_nothing_may_fall_out_a_late_function_stops_the_run(function):
    with pytest.raises(ScoresFailed, match=r"did not answer within 0\.1 s .*--strict lets no rollout .*--resume"):
        function(f"{HERE}:stuck", seconds=0.1, drop=False).score([rollout("a")])


@pytest.mark.parametrize("name", [f"{HERE}:none", HERE, "no.such.module:f", ":f", "builtins:len"])
def test_a_function_that_is_not_there_is_named(function, name):
    with pytest.raises(RewardFunctionUnusable, match=f"^{name}: "):
        function(name)


def test_penalties():
    long = [rollout("x", tokens) for tokens in (1, 4, 5, 9)]
    assert [each.score for each in length_penalty(4).score(long)] == [0, 0, -1, -5]
    texts = [rollout("Answer: 7"), rollout("7")]
    assert [each.score for each in format_penalty("^Answer: ").score(texts)] == [0, -1]


def test_rewards_are_added_up_and_each_is_kept(function):
    rollouts = [rollout("one two", 6), rollout("one", 2)]
    words = (("words", 2.0, "standardize"), function(f"{HERE}:words"))
    long = (("long", 0.5), length_penalty(4))
    with scorer_of(words, long, scales={"words": ScoreScale(1.0, 0.5)}) as scorer:
        first, second = scorer.score(rollouts)
        scorer.standardize_by({"words": ScoreScale(0.0, 1.0)})
        again = scorer.score(rollouts)[0]
    assert first.score == 2 * 2.0 + 0.5 * -2
    assert second.score == 0.0
    assert again.score == 2 * 2.0 + 0.5 * -2 - 4 + 4.0
    assert first.components == (
        ComponentScore("words", 2.0, words[1].revision),
        ComponentScore("long", -2.0, "max_tokens 4"),
    )
    assert first.revision == second.revision == again.revision


def test_where_one_reward_fails_the_item_falls_out_with_its_cause(function):
    class Service(PenaltyScorer):
        def score(self, rollouts):
            return [
                DroppedRollout(each, DropCause.TOO_LONG, "why") if each.seed else ScoredRollout(each, 1.0, "r")
                for each in rollouts
            ]

    fine, bad, silent = rollout("one"), replace(rollout("one"), seed=1), rollout("seven")
    service = Service(lambda rollout: 0.0, "r")
    with scorer_of((("model",), service), (("words",), function(f"{HERE}:words"))) as scorer:
        found = scorer.score([fine, bad, silent])
    assert [type(each) for each in found] == [ScoredRollout, DroppedRollout, DroppedRollout]
    assert (found[1].cause, found[1].message) == (DropCause.TOO_LONG, "model: why")
    assert (found[2].cause, found[2].message) == (DropCause.FAILED, "words: the function gave NoneType, no number")
    assert not hasattr(found[1], "score")
