"""Fills a batch with scored rollouts, whole groups of them: what falls out is drawn again, counted, and has a limit."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from statistics import mean
from typing import TypeAlias

from trainer.ppo.errors import TooFewDrawn, TooManyDropped
from trainer.types import (
    DropCause,
    Dropped,
    DroppedDraw,
    DroppedRollout,
    FilledBatch,
    PromptDraw,
    Rollout,
    ScoredRollout,
)

Draw = Callable[[Sequence[int], int], list[PromptDraw]]
"""(which prompts, 0 = the batch's first; place of the first) → draws."""

Drawn: TypeAlias = Rollout | DroppedDraw
Roll = Callable[[Sequence[PromptDraw]], list[Drawn]]
Score = Callable[[Sequence[Rollout]], list[ScoredRollout | DroppedRollout]]

DROP_WINDOW = 100
"""Rollouts over which the share of dropped ones is taken, so that one of a small batch is not a large share."""

_BUSY = "give it more replicas, or wait longer: a longer --services.timeout, more --services.attempts"
_REMEDIES = {
    DropCause.EXPIRED: f"the reward service did not answer in time: {_BUSY}",
    DropCause.OVERLOADED: f"the reward service has more work than it can queue: {_BUSY}",
    DropCause.UNAVAILABLE: "the reward service is away: start it again, then go on with --resume; one that is only "
    "restarted is waited for as long as --services.attempts allows",
    DropCause.INVALID: "the policy writes what has no text to score (nothing at all, or a NUL character): lower "
    "--ppo.learning-rate or raise --ppo.kl-coef, and let --scoring.min-tokens mark down what ends at once",
    DropCause.DRAW_FAILED: "the policy service's engine fails on these completions, each time it is asked: its log has "
    "the cause; where that is memory, lower its --max-batch-tokens or --sampling.max-new-tokens",
    DropCause.DRAW_EXPIRED: "the policy service did not draw them in time: raise --services.timeout, or lower "
    "--services.shard-prompts",
    DropCause.TOO_LONG: "lower --sampling.max-new-tokens, or serve the reward model with truncation left",
}
_SERVICE_REMEDY = "look at the reward service's log"
_NOT_DRAWN = (DropCause.DRAW_FAILED, DropCause.DRAW_EXPIRED)


class DropLimit:
    """How many rollouts may get no completion or no score: a share of the last `DROP_WINDOW` ones, or of a batch that
    is larger.

    Args:
        share: That share, from 0 (not a single one) to below 1.
        earlier: Which of the rollouts before a resumption fell out, oldest first.
    """

    def __init__(self, share: float, earlier: Iterable[bool] = ()) -> None:
        self._share = share
        self._earlier: deque[bool] = deque(earlier, maxlen=DROP_WINDOW)

    @property
    def window(self) -> tuple[bool, ...]:
        """Which of the last rollouts fell out, oldest first."""
        return tuple(self._earlier)

    def check(self, scored: Sequence[ScoredRollout], dropped: Sequence[Dropped]) -> None:
        """Compares a batch so far, and the batches before it, with the limit.

        Raises:
            TooManyDropped: More fell out; names causes, and how long what fell out is beside what was kept.
            TooFewDrawn: The same, where the commonest cause is that the policy service does not draw them.
        """
        total = len(scored) + len(dropped)
        earlier = list(self._earlier)[-(DROP_WINDOW - total) :] if total < DROP_WINDOW else []
        fallen, window = len(dropped) + sum(earlier), max(DROP_WINDOW, total)
        if dropped and fallen > self._share * window:
            raise _kind(dropped)(
                f"{fallen} of the last {total + len(earlier)} rollouts got no score; --scoring.max-dropped-share "
                f"{self._share:g} allows {int(self._share * window)} of {window}. {_report(scored, dropped)}"
            )

    def remember(self, outcomes: Sequence[ScoredRollout | Dropped]) -> None:
        """Adds a finished batch to what the next ones are judged with."""
        self._earlier.extend(not isinstance(outcome, ScoredRollout) for outcome in outcomes)


def fill_batch(size: int, group_size: int, draw: Draw, roll: Roll, score: Score, limit: DropLimit) -> FilledBatch:
    """Draws, samples and scores until `size` rollouts have a score, `group_size` of each prompt.

    Groups stay whole: where a completion cannot be drawn or scored, another is drawn for the same prompt, with a seed
    of its own. A prompt none of whose completions gets a score makes room for the next one.

    Args:
        size: Rollouts in the batch; a multiple of `group_size`.
        group_size: Completions per prompt.
        draw: Gives prompts for places from a place on.
        roll: Samples their completions, or says why there is none.
        score: Scores them.
        limit: How many may fall out.

    Raises:
        TooManyDropped: More fell out.
    """
    groups = _Groups(size // group_size, group_size)
    outcomes: list[ScoredRollout | Dropped] = []
    while wanted := groups.wanted():
        found = _scored(roll(draw(wanted, len(outcomes))), score)
        groups.add(wanted, found)
        outcomes += found
        dropped = [outcome for outcome in outcomes if not isinstance(outcome, ScoredRollout)]
        limit.check(groups.scored(), dropped)
    limit.remember(outcomes)
    return FilledBatch(tuple(groups.scored()), tuple(dropped), groups.prompts)


def _scored(drawn: Sequence[Drawn], score: Score) -> list[ScoredRollout | Dropped]:
    """What becomes of each draw, in their order; only what was drawn is scored."""
    rollouts = [one for one in drawn if isinstance(one, Rollout)]
    found = iter(score(rollouts) if rollouts else ())
    return [one if isinstance(one, DroppedDraw) else next(found) for one in drawn]


class _Groups:
    """The scored completions of each prompt of a batch, until there are enough.

    Args:
        count: Prompts in the batch.
        size: Completions of each.
    """

    def __init__(self, count: int, size: int) -> None:
        self.prompts = 0
        self._count = count
        self._size = size
        self._members: dict[int, list[ScoredRollout]] = {}

    def wanted(self) -> list[int]:
        """Prompts that lack completions, each as often as it lacks one; new ones where some have none at all."""
        lacking = {prompt: self._size - len(members) for prompt, members in self._members.items()}
        while len(lacking) < self._count:
            lacking[self.prompts] = self._size
            self.prompts += 1
        return [prompt for prompt in sorted(lacking) for _ in range(lacking[prompt])]

    def add(self, prompts: Sequence[int], outcomes: Sequence[ScoredRollout | Dropped]) -> None:
        """Takes what became of completions of `prompts`."""
        for prompt, outcome in zip(prompts, outcomes, strict=True):
            if isinstance(outcome, ScoredRollout):
                self._members.setdefault(prompt, []).append(outcome)

    def scored(self) -> list[ScoredRollout]:
        """Group by group, in the order of the prompts."""
        return [one for prompt in sorted(self._members) for one in self._members[prompt]]


def mean_lengths(outcomes: Iterable[ScoredRollout | Dropped]) -> tuple[float | None, float | None]:
    """Mean tokens of prompts, and of completions: of those that were drawn; None where there is nothing to count."""
    outcomes = tuple(outcomes)
    prompts = [len(one.rollout.prompt_ids if isinstance(one, ScoredRollout) else one.prompt_ids) for one in outcomes]
    completions = [len(one.rollout.completion_ids) for one in outcomes if not isinstance(one, DroppedDraw)]
    return mean(prompts) if prompts else None, mean(completions) if completions else None


def dropped_counts(dropped: Sequence[Dropped]) -> Counter[DropCause]:
    """How many fell out for each cause."""
    return Counter(one.cause for one in dropped)


def _kind(dropped: Sequence[Dropped]) -> type[TooManyDropped]:
    return TooFewDrawn if dropped_counts(dropped).most_common(1)[0][0] in _NOT_DRAWN else TooManyDropped


def _report(scored: Sequence[ScoredRollout], dropped: Sequence[Dropped]) -> str:
    """Causes of a batch, the commonest first, each with one message; lengths; what to do."""
    counts = dropped_counts(dropped).most_common()
    message = {one.cause: one.message for one in reversed(dropped)}
    causes = "; ".join(f"{count} × {cause}: {message[cause]}" for cause, count in counts)
    remedy = _REMEDIES.get(counts[0][0], _SERVICE_REMEDY)
    return f"In this batch: {causes}; {_lengths(scored, dropped)}. What helps: {remedy}"


def _lengths(scored: Sequence[ScoredRollout], dropped: Sequence[Dropped]) -> str:
    """Whether what falls out is longer than what stays; of a completion that was not drawn only its prompt can say."""
    undrawn = [one for one in dropped if isinstance(one, DroppedDraw)]
    (kept_prompt, kept), (_, fallen), (undrawn_prompt, _) = map(mean_lengths, (scored, dropped, undrawn))
    told = [
        f"{what} have {mean:.1f} tokens on average" + ("" if beside is None else f", kept ones {beside:.1f}")
        for what, mean, beside in (
            ("dropped completions", fallen, kept),
            ("prompts of completions that were not drawn", undrawn_prompt, kept_prompt),
        )
        if mean is not None
    ]
    return "; ".join(told)
