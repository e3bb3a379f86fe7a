"""Scoring against a reward service that fails in every way, over a real socket."""

from collections.abc import Callable
from concurrent import futures
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

import grpc
import pytest

from palate.client import ChannelOptions, InvalidInput, RewardClient
from palate.client.errors import InvalidArgument
from palate.client.types import Aggregate, FinishReason, ItemErrorCode, PolicyVersion, VersionSpan
from palate.v1 import reward_service_pb2 as reward
from palate.v1.reward_service_pb2_grpc import RewardServiceServicer, add_RewardServiceServicer_to_server
from trainer.config import PPOConfig
from trainer.ppo.connect_rewards import connect_rewards
from trainer.ppo.errors import RewardModelChanged, ScoresFailed
from trainer.ppo.patience import Patience
from trainer.ppo.service_scoring import ScorerSettings, ServiceScorer
from trainer.types import DropCause, DroppedRollout, Rollout, ScoredRollout

VERSION = PolicyVersion("run", 1, 0, "digest")
AWAY = grpc.StatusCode.UNAVAILABLE


def rollouts(count):
    return [
        Rollout(
            "prompt", f"completion {i}", (1,), (1, 2), (-1.0, -1.0), FinishReason.STOP, (VersionSpan(0, VERSION),), i
        )
        for i in range(count)
    ]


def number(item):
    return int(item.completion.text.rsplit(" ", 1)[1])


def scored(item):
    return reward.ScoreResult(scored=reward.Scored(score=float(number(item))))


def error(code, *, retryable):
    return reward.ScoreResult(error=reward.ItemError(code=code, message="why", retryable=retryable))


@dataclass
class Scripted(RewardServiceServicer):
    """Answers each item as `answer(item, how often it was asked)` says; remembers the sizes of the calls."""

    answer: Callable
    sizes: list = field(default_factory=list)
    asked: dict = field(default_factory=dict)
    options: reward.ScoreOptions | None = None

    def Score(self, request, context):
        self.sizes.append(len(request.items))
        self.options = request.options
        results = []
        for item in request.items:
            times = self.asked[number(item)] = self.asked.get(number(item), 0) + 1
            answer = self.answer(item, times)
            if isinstance(answer, grpc.StatusCode):
                context.abort(answer, "scripted")
            results.append(answer)
        return reward.ScoreResponse(results=results, provenance=reward.Provenance(model="m", revision="rev-1"))


@contextmanager
def scorer_of(answer, items_per_call=4, attempts=3, aggregate=Aggregate.MODEL_DEFAULT, server_bytes=2**22, **channel):
    server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", server_bytes)])
    servicer = Scripted(answer)
    add_RewardServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    # One attempt in the channel: the retries under test are the trainer's own.
    client = RewardClient(f"127.0.0.1:{port}", options=ChannelOptions(max_attempts=1, **channel))
    settings = ScorerSettings(items_per_call, 2, Patience(attempts), timeout=10, aggregate=aggregate)
    scorer = ServiceScorer(client, settings)
    try:
        yield scorer, servicer
    finally:
        scorer.close()
        client.close()
        server.stop(0).wait()


def test_scores_come_back_in_order_in_calls_of_the_right_size():
    with scorer_of(lambda item, times: scored(item)) as (scorer, servicer):
        results = scorer.score(rollouts(10))
    assert [result.score for result in results] == [float(i) for i in range(10)]
    assert {result.revision for result in results} == {"rev-1"}
    assert sorted(servicer.sizes) == [2, 4, 4]


@pytest.mark.parametrize(
    ("flags", "sent"),
    [
        ([], reward.ScoreOptions()),
        (["--scoring.aggregate", "min"], reward.ScoreOptions(aggregate="AGGREGATE_MIN")),
        (
            ["--scoring.aggregate", "mean-minus-variance", "--scoring.variance-weight", "2"],
            reward.ScoreOptions(aggregate="AGGREGATE_MEAN_MINUS_VARIANCE", variance_weight=2.0),
        ),
    ],
)
def test_members_become_one_score_as_configured(flags, sent):
    required = ["--out", "o", "--policy", "p", "--prompts", "q"]
    way = PPOConfig.from_command_line([*required, *flags], "test").reward_list()[0].way()
    with scorer_of(lambda item, times: scored(item), aggregate=way) as (scorer, servicer):
        scorer.score(rollouts(1))
    assert (servicer.options.aggregate, servicer.options.variance_weight) == (sent.aggregate, sent.variance_weight)


def test_a_model_without_members_is_not_trained_against_with_an_aggregate(configure):
    with ExitStack() as stack, pytest.raises(InvalidInput, match="is one model without members"):
        connect_rewards(configure("--scoring.aggregate", "min"), stack, None)


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ({"max_message_bytes": 1000}, "the limit is 1000"),
        ({"server_bytes": 1000}, "raise --max-message-bytes of the server"),  # which the client does not know
    ],
)
def test_a_call_over_the_message_limit_is_halved_until_it_fits(limit, said):
    long = [replace(each, prompt="p" * 400 if each.seed != 5 else "p" * 4000) for each in rollouts(8)]
    with scorer_of(lambda item, times: scored(item), items_per_call=8, **limit) as (scorer, servicer):
        results = scorer.score(long)
    assert [result.score for result in results if result.rollout.seed != 5] == [0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 7.0]
    assert isinstance(results[5], DroppedRollout)
    assert results[5].cause is DropCause.TOO_LONG
    assert said in results[5].message
    assert servicer.sizes == [2, 2, 1, 2]
    assert set(servicer.asked.values()) == {1}


def test_retryable_items_are_tried_again_alone():
    def answer(item, times):
        if number(item) % 3 == 0 and times < 3:
            return error("ITEM_ERROR_CODE_OVERLOADED", retryable=True)
        return scored(item)

    with scorer_of(answer) as (scorer, servicer):
        results = scorer.score(rollouts(8))
    assert [result.score for result in results] == [float(i) for i in range(8)]
    assert servicer.asked == {i: 3 if i % 3 == 0 else 1 for i in range(8)}


def test_what_never_gets_a_score_is_dropped_by_name_and_never_zero():
    def answer(item, times):
        if number(item) == 1:
            return error("ITEM_ERROR_CODE_TOO_LONG", retryable=False)
        if number(item) == 2:
            return error("ITEM_ERROR_CODE_EXPIRED", retryable=True)
        return scored(item)

    with scorer_of(answer) as (scorer, servicer):
        results = scorer.score(rollouts(4))
    assert [type(result) for result in results] == [ScoredRollout, DroppedRollout, DroppedRollout, ScoredRollout]
    assert (results[1].cause, results[1].message) == (DropCause.TOO_LONG, "why")
    assert (results[2].cause, results[2].message) == (DropCause.EXPIRED, "why (3 attempts)")
    assert not hasattr(results[1], "score")
    assert servicer.asked == {0: 1, 1: 1, 2: 3, 3: 1}


def test_a_failed_call_is_tried_again():
    with scorer_of(lambda item, times: scored(item) if number(item) or times > 1 else AWAY) as (scorer, _):
        assert [result.score for result in scorer.score(rollouts(3))] == [0.0, 1.0, 2.0]


def test_a_service_that_is_away_drops_everything_with_the_cause():
    with scorer_of(lambda item, times: AWAY, attempts=2) as (scorer, _):
        results = scorer.score(rollouts(3))
    assert {result.cause for result in results} == {DropCause.UNAVAILABLE}
    assert all(isinstance(result, DroppedRollout) and "2 attempts" in result.message for result in results)


def test_where_nothing_may_fall_out_the_run_stops():
    with scorer_of(lambda item, times: AWAY, attempts=2) as (scorer, _):
        scorer._settings = replace(scorer._settings, drop=False)
        with pytest.raises(ScoresFailed, match="--strict lets none fall out"):
            scorer.score(rollouts(3))


def test_every_code_of_the_service_is_a_cause():
    assert {code.value for code in ItemErrorCode} < {cause.value for cause in DropCause}


@pytest.mark.parametrize("completion", ["\0", "broken off \0 here", "", " \n"])
def test_a_completion_that_nothing_can_score_is_dropped_alone(reward_server, completion):
    with RewardClient(reward_server.target) as client:
        scorer = ServiceScorer(
            client, ScorerSettings(items_per_call=8, concurrency=1, patience=Patience(2), timeout=30)
        )
        unscorable, fine = replace(rollouts(1)[0], completion=completion), rollouts(1)[0]
        first, second = scorer.score([unscorable, fine])
        scorer.close()
    assert isinstance(second, ScoredRollout)
    assert isinstance(first, DroppedRollout)
    assert first.cause is DropCause.INVALID


def test_another_revision_stops_the_run():
    with (
        scorer_of(lambda item, times: grpc.StatusCode.FAILED_PRECONDITION) as (scorer, _),
        pytest.raises(RewardModelChanged, match="--accept-new-reward"),
    ):
        scorer.score(rollouts(3))


def test_a_refused_call_is_not_argued_with():
    with (
        scorer_of(lambda item, times: grpc.StatusCode.INVALID_ARGUMENT) as (scorer, servicer),
        pytest.raises(InvalidArgument),
    ):
        scorer.score(rollouts(3))
    assert len(servicer.sizes) == 1
