"""Requests of the reward service as bytes, and what its answers and its metrics say."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from prometheus_client.parser import text_string_to_metric_families

from benchmarks.load import OK, Answer, Target
from palate.local_server import LocalServer
from palate.v1 import common_pb2 as common
from palate.v1 import reward_service_pb2 as reward

Pair: TypeAlias = tuple[str, str]
"""Prompt and completion."""


class Unanswered(Exception):
    """A request or an item has no score, where every one should have."""


def method(server: LocalServer, name: str) -> Target:
    """A method of the reward service."""
    return Target("grpc", server.target, f"/palate.v1.RewardService/{name}")


def score_requests(pairs: Sequence[Pair], items: int) -> list[bytes]:
    """`pairs` as Score requests of `items` each."""
    groups = (pairs[start : start + items] for start in range(0, len(pairs), items))
    return [reward.ScoreRequest(items=map(_item, group)).SerializeToString() for group in groups]


def stream_requests(pairs: Sequence[Pair]) -> list[bytes]:
    """`pairs` as the messages of one ScoreStream call; an item's id is its place."""
    options = reward.ScoreStreamRequest(options=reward.ScoreOptions())
    items = (
        reward.ScoreStreamRequest(item=reward.StreamItem(id=place, item=_item(pair)))
        for place, pair in enumerate(pairs)
    )
    return [message.SerializeToString() for message in (options, *items)]


def rank_request(prompt: str, completions: Sequence[str]) -> bytes:
    """One Rank request."""
    texts = [common.Content(text=text) for text in completions]
    return reward.RankRequest(prompt=common.Content(text=prompt), completions=texts).SerializeToString()


def replies(answers: Iterable[Answer]) -> list[reward.ScoreResponse]:
    """Decoded answers to Score.

    Raises:
        Unanswered: A call failed.
    """
    return [reward.ScoreResponse.FromString(body) for body in _bodies(answers)]


def scores(answers: Iterable[Answer]) -> list[float]:
    """The score of every item of Score calls, in their order.

    Raises:
        Unanswered: A call failed, or an item has no score.
    """
    return [_score(result) for reply in replies(answers) for result in reply.results]


def streamed_scores(answers: Iterable[Answer]) -> list[float]:
    """The score of every item of a stream, in the order of their ids."""
    found = [reward.ScoreStreamResponse.FromString(body) for body in _bodies(answers)]
    return [_score(reply.result) for reply in sorted(found, key=lambda reply: reply.id)]


def ranked_scores(answers: Iterable[Answer]) -> list[float]:
    """The score of every completion of Rank calls, in their order."""
    found = [reward.RankResponse.FromString(body) for body in _bodies(answers)]
    return [_checked(result, "ranked").ranked.scored.score for reply in found for result in reply.results]


def metrics(server: LocalServer) -> dict[str, float]:
    """The server's counters and gauges by name; one with labels has their values after it: `name/value`."""
    with urllib.request.urlopen(f"http://{server.metrics_target}/metrics", timeout=10.0) as reply:
        families = text_string_to_metric_families(reply.read().decode())
    return {"/".join((one.name, *one.labels.values())): one.value for family in families for one in family.samples}


def _item(pair: Pair) -> reward.ScoreItem:
    return reward.ScoreItem(prompt=common.Content(text=pair[0]), completion=common.Content(text=pair[1]))


def _bodies(answers: Iterable[Answer]) -> list[bytes]:
    found = list(answers)
    if failed := sorted({answer.status for answer in found if answer.status != OK}):
        raise Unanswered(f"calls failed with {', '.join(failed)}; the server's log has the cause")
    return [answer.body for answer in found]


def _score(result: reward.ScoreResult) -> float:
    return float(_checked(result, "scored").scored.score)


def _checked(result: Any, outcome: str) -> Any:
    if result.WhichOneof("outcome") != outcome:
        raise Unanswered(f"an item has no score: {result.error.message}")
    return result
