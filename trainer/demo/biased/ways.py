"""The ways that are put side by side: who labels the pairs, and how a reward model learns from them."""

from __future__ import annotations

from dataclasses import dataclass

from trainer.reward_model.config import AnnotatorRule
from trainer.simulation.annotators import Annotator, biased_panel, honest_panel, mixed_panel

HASTY, CAREFUL = 0.35, 0.05
"""How often the seven of a mixed panel who like warmth slip."""

MEMBERS = 4
"""Of the ensemble."""

_BESIDE = "centred, and with a critic that starts from the policy"
"""What an ensemble needs beside, and the other ways do not have."""

VARIANCE_WEIGHT = 0.5
"""What the ensemble's objective takes off: so many times the variance of its members' scores."""


@dataclass(frozen=True, slots=True)
class Way:
    """A panel and what is learnt from it.

    Attributes:
        name: Key; names the folder too.
        told: What it is, for a reader.
        panel: Who labels, one of them each pair.
        annotators: Whether reliabilities are learnt with the scores.
        members: Heads of the reward model; with more than one the policy is trained on their mean less variance.
        has_policy: Whether a policy is trained against it.
    """

    name: str
    told: str
    panel: tuple[Annotator, ...]
    annotators: AnnotatorRule = "ignore"
    members: int = 1
    has_policy: bool = True


def ways(label_error: float) -> tuple[Way, ...]:
    """All of them, in the order of the report; the honest panel errs as often as `label_error` says.

    Raises:
        ValueError: No honest panel can have this label error.
    """
    biased, hasty = biased_panel(), mixed_panel(HASTY)
    learnt = "seven who like warmth and are hasty, three honest; reliabilities learnt"
    return (
        Way("biased", "five who like warmth, length or hedging", biased),
        Way("honest", "five who err, but have no bias", honest_panel(label_error)),
        Way(
            "ensemble",
            f"the labels of “biased”, a reward model with {MEMBERS} heads; {_BESIDE}",
            biased,
            members=MEMBERS,
        ),
        Way("reliability", learnt, hasty, annotators="reliability"),
        Way("plain", "the labels of “reliability”, every vote counting alike", hasty, has_policy=False),
        Way(
            "majority",
            "as “reliability”, but the seven are as careful as the three",
            mixed_panel(CAREFUL),
            annotators="reliability",
            has_policy=False,
        ),
    )
