"""What the engine's time goes to, learned from its batches: how long a batch will take, and how fast a backlog goes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, replace

_MEMORY = 0.95
"""What one batch leaves of the weight of those before it: the last twenty or so count."""

_USUAL_FIXED_TOKENS = 32
"""What a batch costs beside its tokens, in tokens, as long as batches of different sizes have not told."""

_OUTLIER = 4.0
"""No batch counts for more than so many times what was expected of it: a pause of the machine is no property of it."""

_MARGIN = 3.0
"""A batch is said to end after its expected time and so many times the usual deviation from it."""

_DOUBT_SECONDS = 5.0
_MAX_GROUPS = 64


@dataclass(frozen=True, slots=True)
class Cost:
    """seconds ≈ fixed + per_token · padded tokens: least squares on relative errors, older batches counting less.

    A batch of x padded tokens that took y seconds enters with weight 1/(x + 32)², so that short batches are fitted as
    well as long ones, whatever the speed.

    Attributes:
        weight, x, y, xx, xy: Weighted sums over the batches.
        deviation: Usual |actual/expected − 1|.
    """

    weight: float = 0.0
    x: float = 0.0
    y: float = 0.0
    xx: float = 0.0
    xy: float = 0.0
    deviation: float = 0.0

    def expected(self, padded: int) -> float:
        """Seconds that a batch takes; 0 while nothing is known."""
        fixed, per_token = self._line()
        return fixed + per_token * padded

    def safe(self, padded: int) -> float:
        """Seconds after which a batch has very likely ended."""
        return self.expected(padded) * (1.0 + _MARGIN * self.deviation)

    def after(self, padded: int, seconds: float) -> Cost:
        """With one more batch."""
        expected = self.expected(padded)
        seconds = min(seconds, _OUTLIER * expected) if expected > 0 else seconds
        error = abs(seconds / expected - 1.0) if expected > 0 else 0.0
        w = 1.0 / (padded + _USUAL_FIXED_TOKENS) ** 2
        return Cost(
            _MEMORY * self.weight + w,
            _MEMORY * self.x + w * padded,
            _MEMORY * self.y + w * seconds,
            _MEMORY * self.xx + w * padded * padded,
            _MEMORY * self.xy + w * padded * seconds,
            _MEMORY * self.deviation + (1 - _MEMORY) * error,
        )

    def doubted(self) -> Cost:
        """Half of what was believed; for when belief alone keeps the engine from work, so that it could never learn."""
        return Cost(self.weight, self.x, self.y / 2, self.xx, self.xy / 2, self.deviation / 2)

    def _line(self) -> tuple[float, float]:
        """(fixed, per_token), neither negative."""
        spread = self.weight * self.xx - self.x * self.x
        if spread > 1e-3 * self.weight * self.xx:
            per_token = (self.weight * self.xy - self.x * self.y) / spread
            fixed = (self.y - per_token * self.x) / self.weight
            if per_token >= 0 and fixed >= 0:
                return fixed, per_token
            return (self.y / self.weight, 0.0) if per_token < 0 else (0.0, self.xy / self.xx)
        if not self.weight:
            return 0.0, 0.0
        per_token = self.y / (self.x + _USUAL_FIXED_TOKENS * self.weight)
        return _USUAL_FIXED_TOKENS * per_token, per_token


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a group's backlog goes: seconds per real token, over batches after which some of it still waited.

    A lone item says little about that: it has no company to share the batch's fixed cost with.
    """

    tokens: float = 0.0
    seconds: float = 0.0

    def after(self, tokens: int, seconds: float) -> Pace:
        """With one more batch."""
        return Pace(_MEMORY * self.tokens + tokens, _MEMORY * self.seconds + seconds)

    @property
    def token_seconds(self) -> float:
        """Seconds that a token takes; 0 while nothing is known."""
        return self.seconds / self.tokens if self.tokens else 0.0


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of a group, and since when."""

    cost: Cost = Cost()
    pace: Pace = Pace()
    since: float = 0.0


class Costs:
    """Cost and pace of every group; those used longest ago are forgotten first."""

    def __init__(self) -> None:
        self._known: OrderedDict[Hashable, _Known] = OrderedDict()

    def of(self, group: Hashable) -> Cost:
        """What a batch of `group` costs."""
        return self._of(group).cost

    def token_seconds(self, group: Hashable, full_batch: int) -> float:
        """What a token of a backlog of `group` takes: by its pace, else as in full batches of so many padded tokens."""
        known = self._of(group)
        return known.pace.token_seconds or known.cost.expected(full_batch) / full_batch

    def learn(self, group: Hashable, padded: int, seconds: float, now: float) -> None:
        """A batch of `group` took so long."""
        known = self._of(group)
        self._put(group, _Known(known.cost.after(padded, seconds), known.pace, now))

    def follow(self, group: Hashable, tokens: int, seconds: float) -> None:
        """So many tokens of a backlog of `group` took so long."""
        known = self._of(group)
        self._put(group, replace(known, pace=known.pace.after(tokens, seconds)))

    def doubt(self, group: Hashable, now: float) -> None:
        """Work was turned away by belief alone; after a while without a batch that belief is weakened."""
        known = self._of(group)
        if group in self._known and now - known.since >= _DOUBT_SECONDS:
            self._put(group, _Known(known.cost.doubted(), known.pace, now))

    def _of(self, group: Hashable) -> _Known:
        return self._known.get(group, _Known())

    def _put(self, group: Hashable, known: _Known) -> None:
        self._known[group] = known
        self._known.move_to_end(group)
        if len(self._known) > _MAX_GROUPS:
            self._known.popitem(last=False)
