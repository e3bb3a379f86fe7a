"""The ways as rows of one table, for the report and for the terminal."""

from __future__ import annotations

from trainer.demo.biased.results import BiasedResults, WayResult
from trainer.demo.results import told

HEADER = ("way", "wrong labels", "accuracy", "flagged", "honest wins", "proxy, SD", "gold, SD", "KL", "worse in")


def rows_of(results: BiasedResults) -> list[tuple[str, ...]]:
    """One row a way, under `HEADER`; "-" where no policy was trained."""
    return [(way.name, *_reward(way), *_policy(way)) for way in results.ways.values()]


def _reward(way: WayResult) -> tuple[str, ...]:
    found = way.reward
    flagged = ", ".join(found.flagged) or "nothing"
    return told(found.label_error, ".0%"), told(found.accuracy, ".2f"), flagged, f"{found.honest_wins} of 20"


def _policy(way: WayResult) -> tuple[str, ...]:
    if way.policy is None:
        return ("-",) * 4
    found = way.policy
    worse = ", ".join(each.name for each in found.audit.worse) or "nothing"
    return f"{found.proxy_gain:+.2f}", told(found.gold_gain, "+.2f"), f"{found.kl:.1f}", worse
