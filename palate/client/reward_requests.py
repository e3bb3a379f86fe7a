"""What both reward clients send, made from checked arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from palate.client import checks
from palate.client import types as t
from palate.client.content import content_message, content_messages
from palate.client.errors import InvalidInput
from palate.v1 import reward_service_pb2 as reward


class RewardRequests:
    """Makes requests for one model; each raises `InvalidInput` where an argument is wrong.

    Args:
        model: Name of the model; empty = the server's default.
        revision: The revision to insist on; empty = any.
    """

    def __init__(self, model: str, revision: str) -> None:
        self._model = checks.text(model, "model")
        self._revision = checks.text(revision, "revision")

    def options(
        self,
        *,
        model: str | None = None,
        revision: str | None = None,
        truncation: t.Truncation = t.Truncation.MODEL_DEFAULT,
        priority: t.Priority = t.Priority.NORMAL,
        aggregate: t.AggregateLike = t.Aggregate.MODEL_DEFAULT,
        members: bool = False,
    ) -> reward.ScoreOptions:
        """How to score; the client's revision is that of the client's model, and does not go with another one."""
        pinned = self._revision if model is None else ""
        name, weight = _aggregate(aggregate)
        return reward.ScoreOptions(
            model=self._model if model is None else checks.text(model, "model"),
            revision=pinned if revision is None else checks.text(revision, "revision"),
            truncation=f"TRUNCATION_{checks.choice(truncation, t.Truncation, 'truncation').value}",
            priority=f"PRIORITY_{checks.choice(priority, t.Priority, 'priority').value}",
            aggregate=f"AGGREGATE_{name}",
            variance_weight=weight,
            include_members=checks.flag(members, "members"),
        )

    def score(
        self,
        prompts: Sequence[t.ContentLike],
        completions: Sequence[t.ContentLike],
        **options: Unpack[t.ScoreOptions],
    ) -> reward.ScoreRequest:
        """One item per pair."""
        firsts, seconds = content_messages(prompts, "prompts"), content_messages(completions, "completions")
        if len(firsts) != len(seconds):
            raise InvalidInput(
                f"{len(firsts)} prompts for {len(seconds)} completions; each completion needs its prompt"
            )
        pairs = zip(firsts, seconds, strict=True)
        items = [reward.ScoreItem(prompt=prompt, completion=completion) for prompt, completion in pairs]
        return reward.ScoreRequest(items=items, options=self.options(**options))

    def compare(
        self,
        prompt: t.ContentLike,
        first: t.ContentLike,
        second: t.ContentLike,
        **options: Unpack[t.ScoreOptions],
    ) -> reward.CompareRequest:
        """Two completions of one prompt."""
        return reward.CompareRequest(
            prompt=content_message(prompt, "prompt"),
            first=content_message(first, "first"),
            second=content_message(second, "second"),
            options=self.options(**options),
        )

    def rank(
        self, prompt: t.ContentLike, completions: Sequence[t.ContentLike], **options: Unpack[t.ScoreOptions]
    ) -> reward.RankRequest:
        """Completions of one prompt."""
        return reward.RankRequest(
            prompt=content_message(prompt, "prompt"),
            completions=content_messages(completions, "completions"),
            options=self.options(**options),
        )

    def explain(
        self, prompt: t.ContentLike, completion: t.ContentLike, **options: Unpack[t.ScoreOptions]
    ) -> reward.ExplainRequest:
        """One item."""
        return reward.ExplainRequest(item=score_item(prompt, completion), options=self.options(**options))

    def model_info(self, model: str | None) -> reward.GetModelInfoRequest:
        """The model; None = the client's."""
        return reward.GetModelInfoRequest(model=self._model if model is None else checks.text(model, "model"))


def score_item(prompt: t.ContentLike, completion: t.ContentLike) -> reward.ScoreItem:
    """A prompt with its completion."""
    return reward.ScoreItem(
        prompt=content_message(prompt, "prompt"), completion=content_message(completion, "completion")
    )


def _aggregate(value: t.AggregateLike) -> tuple[str, float | None]:
    """Its name in the contract, and the weight of the variance where it has one."""
    if isinstance(value, t.MeanMinusVariance):
        return "MEAN_MINUS_VARIANCE", checks.number(value.weight, "the weight of MeanMinusVariance")
    return checks.choice(value, t.Aggregate, "aggregate").value, None
