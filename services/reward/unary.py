"""Requests with one reply: their items scored with the model that they name, whichever protocol brought them."""

from __future__ import annotations

from collections.abc import Sequence

from palate.v1 import reward_service_pb2 as reward
from services.reward.config import RewardConfig
from services.reward.inputs import Item
from services.reward.options import demand_of
from services.reward.registry import Registry
from services.reward.replies import Source
from services.reward.scoring import ItemResult
from services.runtime.errors import InvalidRequest, TooLarge


class UnaryScoring:
    """Scores the items of whole requests; each keeps the model it began with."""

    def __init__(self, registry: Registry, config: RewardConfig) -> None:
        self._registry = registry
        self._max_items = config.max_items

    async def score(
        self, items: Sequence[Item], options: reward.ScoreOptions, deadline: float
    ) -> tuple[list[ItemResult], Source]:
        """One result per item, in their order, and where they come from; `deadline` is in `time.monotonic` seconds.

        Raises:
            ServiceError: The request as a whole is wrong, or cannot be taken.
        """
        with self._registry.using(options.model) as served:
            demand = demand_of(options, served.model, deadline)
            check_count(len(items), self._max_items)
            results, stages = await served.scorer.score(items, demand)
            return results, Source(served.model, demand, stages)


def check_count(items: int, max_items: int) -> None:
    """Whether a request may hold so many items.

    Raises:
        InvalidRequest: There are none.
        TooLarge: There are too many.
    """
    if not items:
        raise InvalidRequest("the request holds nothing to score; send at least one item")
    if items > max_items:
        raise TooLarge(f"{items} items in one request; this server takes {max_items}: send several")
