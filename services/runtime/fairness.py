"""Who has had how much of the engine, and who may hold how much of the queue and of the calls in flight."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

_MAX_CALLERS = 4096

_RESERVED = 8
"""One part in so many is for those who hold less than their fair share."""


class Served:
    """Tokens served to every caller, as far as they matter.

    Who comes with nothing waiting starts level with the least served caller: idle time earns no credit, and who was
    ahead stays ahead (virtual token counters, Sheng et al. 2024, "Fairness in Serving Large Language Models").
    """

    def __init__(self) -> None:
        self._tokens: dict[str, float] = {}
        self._floor = 0.0

    def of(self, caller: str) -> float:
        """Tokens that `caller` counts as served."""
        return max(self._tokens.get(caller, 0.0), self._floor)

    def charge(self, caller: str, tokens: int) -> None:
        """`caller` was served so many more."""
        self._tokens[caller] = self.of(caller) + tokens

    def level(self, waiting: Iterable[str]) -> None:
        """Moves the floor up to the least served of those who wait."""
        self._floor = min((self.of(caller) for caller in waiting), default=self._floor)
        if len(self._tokens) > _MAX_CALLERS:
            self._tokens = {caller: tokens for caller, tokens in self._tokens.items() if tokens > self._floor}
        if len(self._tokens) > _MAX_CALLERS:  # then those furthest ahead are the ones to remember
            ahead = sorted(self._tokens, key=self._tokens.__getitem__, reverse=True)[: _MAX_CALLERS // 2]
            self._tokens = {caller: self._tokens[caller] for caller in ahead}


class Holdings:
    """How much of something bounded every caller holds: of the queue in items or in tokens, of the calls in flight."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: defaultdict[str, int] = defaultdict(int)
        self.total = 0

    def change(self, caller: str, amount: int) -> None:
        """`caller` holds so much more."""
        self.total += amount
        self._held[caller] += amount
        if not self._held[caller]:
            del self._held[caller]

    def of(self, caller: str) -> int:
        """How much `caller` holds."""
        return self._held.get(caller, 0)

    def excess(self, caller: str, amount: int) -> int:
        """How much must go before `caller` may hold so much more; not positive where he may now."""
        held = self.of(caller)
        callers = len(self._held) + (not held)
        over_share = held * max(callers, 2) > self._limit
        return self.total + amount - (self._limit - (self._limit // _RESERVED if over_share else 0))
