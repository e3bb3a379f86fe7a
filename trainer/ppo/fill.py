"""Fills a batch with scored rollouts: what falls out is drawn again, counted, and has a limit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from statistics import mean

from trainer.ppo.errors import TooManyDropped
from trainer.types import DroppedRollout, FilledBatch, PromptDraw, Rollout, ScoredRollout

Draw = Callable[[int, int], list[PromptDraw]]
"""(count, place of the first) → draws."""

Roll = Callable[[Sequence[PromptDraw]], list[Rollout]]
Score = Callable[[Sequence[Rollout]], list[ScoredRollout | DroppedRollout]]


def fill_batch(size: int, draw: Draw, roll: Roll, score: Score, max_dropped_share: float) -> FilledBatch:
    """Draws, samples and scores until `size` rollouts have a score.

    Args:
        size: Rollouts in the batch.
        draw: Gives prompts for so many places from a place on.
        roll: Samples their completions.
        score: Scores them.
        max_dropped_share: How many may fall out, as a share of all that were sampled.

    Raises:
        TooManyDropped: More fell out; names reasons, and how long the dropped completions are beside the kept ones.
    """
    scored: list[ScoredRollout] = []
    dropped: list[DroppedRollout] = []
    while missing := size - len(scored):
        for outcome in score(roll(draw(missing, len(scored) + len(dropped)))):
            if isinstance(outcome, ScoredRollout):
                scored.append(outcome)
            else:
                dropped.append(outcome)
        if len(dropped) > max_dropped_share * (len(scored) + len(dropped)):
            raise TooManyDropped(_report(scored, dropped, max_dropped_share))
    return FilledBatch(tuple(scored), tuple(dropped))


def mean_length(outcomes: Sequence[ScoredRollout] | Sequence[DroppedRollout]) -> float:
    """Mean tokens per completion of at least one outcome."""
    return mean(len(outcome.rollout.completion_ids) for outcome in outcomes)


def _report(scored: Sequence[ScoredRollout], dropped: Sequence[DroppedRollout], limit: float) -> str:
    total = len(scored) + len(dropped)
    reasons = "; ".join(f"{count} × {reason}" for reason, count in Counter(d.reason for d in dropped).most_common(3))
    lengths = f"Dropped completions have {mean_length(dropped):.1f} tokens on average"
    if scored:
        lengths += f", kept ones {mean_length(scored):.1f}"
    return (
        f"{len(dropped)} of {total} rollouts got no score, more than the allowed share of {limit}: {reasons}. "
        f"{lengths}. "
        "Look at the reward service's log and its queue; a longer --services.timeout or more --services.attempts help "
        "against overload, --scoring.max-dropped-share allows more"
    )
