"""Fills a batch with scored rollouts, whole groups of them: what falls out is drawn again, counted, and has a limit."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from statistics import mean

from trainer.ppo.errors import TooManyDropped
from trainer.types import DropCause, DroppedRollout, FilledBatch, PromptDraw, Rollout, ScoredRollout

Draw = Callable[[Sequence[int], int], list[PromptDraw]]
"""(which prompts, 0 = the batch's first; place of the first) → draws."""

Roll = Callable[[Sequence[PromptDraw]], list[Rollout]]
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
    DropCause.TOO_LONG: "lower --sampling.max-new-tokens, or serve the reward model with truncation left",
}
_SERVICE_REMEDY = "look at the reward service's log"


class DropLimit:
    """How many rollouts may get no score: a share of the last `DROP_WINDOW` ones, or of a batch that is larger.

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

    def check(self, scored: Sequence[ScoredRollout], dropped: Sequence[DroppedRollout]) -> None:
        """Compares a batch so far, and the batches before it, with the limit.

        Raises:
            TooManyDropped: More fell out; names causes, and how long dropped completions are beside kept ones.
        """
        total = len(scored) + len(dropped)
        earlier = list(self._earlier)[-(DROP_WINDOW - total) :] if total < DROP_WINDOW else []
        fallen, window = len(dropped) + sum(earlier), max(DROP_WINDOW, total)
        if dropped and fallen > self._share * window:
            raise TooManyDropped(
                f"{fallen} of the last {total + len(earlier)} rollouts got no score; --scoring.max-dropped-share "
                f"{self._share:g} allows {int(self._share * window)} of {window}. {_report(scored, dropped)}"
            )

    def remember(self, outcomes: Sequence[ScoredRollout | DroppedRollout]) -> None:
        """Adds a finished batch to what the next ones are judged with."""
        self._earlier.extend(isinstance(outcome, DroppedRollout) for outcome in outcomes)


def fill_batch(size: int, group_size: int, draw: Draw, roll: Roll, score: Score, limit: DropLimit) -> FilledBatch:
    """Draws, samples and scores until `size` rollouts have a score, `group_size` of each prompt.

    Groups stay whole: a completion without a score is drawn again for the same prompt, with a seed of its own. A prompt
    none of whose completions gets a score makes room for the next one.

    Args:
        size: Rollouts in the batch; a multiple of `group_size`.
        group_size: Completions per prompt.
        draw: Gives prompts for places from a place on.
        roll: Samples their completions.
        score: Scores them.
        limit: How many may fall out.

    Raises:
        TooManyDropped: More fell out.
    """
    groups = _Groups(size // group_size, group_size)
    outcomes: list[ScoredRollout | DroppedRollout] = []
    while wanted := groups.wanted():
        found = score(roll(draw(wanted, len(outcomes))))
        groups.add(wanted, found)
        outcomes += found
        dropped = [outcome for outcome in outcomes if isinstance(outcome, DroppedRollout)]
        limit.check(groups.scored(), dropped)
    limit.remember(outcomes)
    return FilledBatch(tuple(groups.scored()), tuple(dropped), groups.prompts)


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

    def add(self, prompts: Sequence[int], outcomes: Sequence[ScoredRollout | DroppedRollout]) -> None:
        """Takes what became of completions of `prompts`."""
        for prompt, outcome in zip(prompts, outcomes, strict=True):
            if isinstance(outcome, ScoredRollout):
                self._members.setdefault(prompt, []).append(outcome)

    def scored(self) -> list[ScoredRollout]:
        """Group by group, in the order of the prompts."""
        return [one for prompt in sorted(self._members) for one in self._members[prompt]]


def mean_length(outcomes: Sequence[ScoredRollout] | Sequence[DroppedRollout]) -> float:
    """Mean tokens per completion of at least one outcome."""
    return mean(len(outcome.rollout.completion_ids) for outcome in outcomes)


def dropped_counts(dropped: Sequence[DroppedRollout]) -> Counter[DropCause]:
    """How many fell out for each cause."""
    return Counter(one.cause for one in dropped)


def _report(scored: Sequence[ScoredRollout], dropped: Sequence[DroppedRollout]) -> str:
    """Causes of a batch, the commonest first, each with one message; lengths; what to do."""
    counts = dropped_counts(dropped).most_common()
    message = {one.cause: one.message for one in reversed(dropped)}
    causes = "; ".join(f"{count} × {cause}: {message[cause]}" for cause, count in counts)
    lengths = f"dropped completions have {mean_length(dropped):.1f} tokens on average"
    if scored:
        lengths += f", kept ones {mean_length(scored):.1f}"
    remedy = _REMEDIES.get(counts[0][0], _SERVICE_REMEDY)
    return f"In this batch: {causes}; {lengths}. What helps: {remedy}"
