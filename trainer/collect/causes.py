"""Why a pair gets no label, and what to do where too many get none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from enum import StrEnum


class Cause(StrEnum):
    """Why a pair is left out, as it is counted and written down."""

    REFUSED = "with a prompt that the policy refuses"
    EMPTY = "with an empty completion"
    IDENTICAL = "identical"
    COMPARED = "compared before"
    UNSCORED = "cannot be scored"
    SKIPPED = "skipped"
    UNREADABLE = "unreadable"
    REFUSED_BY_JUDGE = "refused by the judge"


_REMEDIES: Mapping[Cause, str] = {
    Cause.REFUSED: "The policy has no room for most prompts: give shorter --prompts, or lower --max-new-tokens",
    Cause.EMPTY: "The policy nearly always says nothing: give another --policy, or other --prompts",
    Cause.IDENTICAL: "The policy nearly always says the same: raise --temperature or --max-new-tokens",
    Cause.COMPARED: "The policy has little else to say to these prompts: give more --prompts, raise --temperature, or "
    "ask for fewer --pairs",
    Cause.UNSCORED: "The reward model takes no texts as long as these: lower --max-new-tokens, or serve one that does",
    Cause.SKIPPED: "Whoever compares has skipped most: give other --prompts",
    Cause.UNREADABLE: "The judge hardly ever answers A or B: give a --judge that follows instructions, or lower "
    "--least-mass",
    Cause.REFUSED_BY_JUDGE: "The judge takes no texts as long as these: lower --max-new-tokens, or give shorter "
    "--principles or another --judge",
}


def counted(left_out: Mapping[Cause, int]) -> str:
    """How many pairs were left out of which cause, most first."""
    return ", ".join(f"{count} {cause}" for cause, count in Counter(left_out).most_common()) or "none"


def remedy(left_out: Mapping[Cause, int]) -> str:
    """What to do about the commonest cause."""
    return "".join(_REMEDIES[cause] for cause, _ in Counter(left_out).most_common(1))
