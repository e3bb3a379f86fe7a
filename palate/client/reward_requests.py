"""What both reward clients send, made from checked arguments."""

from __future__ import annotations

from collections.abc import Sequence

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

    def options(self, truncation: t.Truncation, priority: t.Priority = t.Priority.NORMAL) -> reward.ScoreOptions:
        """How to score."""
        return reward.ScoreOptions(
            model=self._model,
            revision=self._revision,
            truncation=f"TRUNCATION_{checks.choice(truncation, t.Truncation, 'truncation').value}",
            priority=f"PRIORITY_{checks.choice(priority, t.Priority, 'priority').value}",
        )

    def score(
        self,
        prompts: Sequence[t.ContentLike],
        completions: Sequence[t.ContentLike],
        truncation: t.Truncation,
        priority: t.Priority,
    ) -> reward.ScoreRequest:
        """One item per pair."""
        firsts, seconds = content_messages(prompts, "prompts"), content_messages(completions, "completions")
        if len(firsts) != len(seconds):
            raise InvalidInput(
                f"{len(firsts)} prompts for {len(seconds)} completions; each completion needs its prompt"
            )
        pairs = zip(firsts, seconds, strict=True)
        items = [reward.ScoreItem(prompt=prompt, completion=completion) for prompt, completion in pairs]
        return reward.ScoreRequest(items=items, options=self.options(truncation, priority))

    def compare(
        self, prompt: t.ContentLike, first: t.ContentLike, second: t.ContentLike, truncation: t.Truncation
    ) -> reward.CompareRequest:
        """Two completions of one prompt."""
        return reward.CompareRequest(
            prompt=content_message(prompt, "prompt"),
            first=content_message(first, "first"),
            second=content_message(second, "second"),
            options=self.options(truncation),
        )

    def rank(
        self, prompt: t.ContentLike, completions: Sequence[t.ContentLike], truncation: t.Truncation
    ) -> reward.RankRequest:
        """Completions of one prompt."""
        return reward.RankRequest(
            prompt=content_message(prompt, "prompt"),
            completions=content_messages(completions, "completions"),
            options=self.options(truncation),
        )

    def explain(
        self, prompt: t.ContentLike, completion: t.ContentLike, truncation: t.Truncation
    ) -> reward.ExplainRequest:
        """One item."""
        return reward.ExplainRequest(item=score_item(prompt, completion), options=self.options(truncation))

    def model_info(self) -> reward.GetModelInfoRequest:
        """The model."""
        return reward.GetModelInfoRequest(model=self._model)


def score_item(prompt: t.ContentLike, completion: t.ContentLike) -> reward.ScoreItem:
    """A prompt with its completion."""
    return reward.ScoreItem(
        prompt=content_message(prompt, "prompt"), completion=content_message(completion, "completion")
    )
