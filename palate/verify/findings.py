"""What was found of one server: its ways against its own scores, and its scores against the reference's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from palate.client import RewardClient
from palate.models.agreement import Agreement, Scored, agreement, spearman
from palate.models.probe_texts import Pair
from palate.models.tolerances import Tolerance, tolerance_of
from palate.verify.ways import WAYS, Alone, VerifyError, score_alone

FEWEST_FOR_SPEARMAN = 20
"""Texts; among fewer, two that score nearly alike and change places weigh too much to judge by."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One comparison.

    Attributes:
        way: Which.
        agreement: What it gave.
        allowed: Standard deviations.
        spearman: Rank correlation with the reference; None within one server, or where there is no order.
        least_spearman: What is asked of it; None = it is not judged.
    """

    way: str
    agreement: Agreement
    allowed: float
    spearman: float | None = None
    least_spearman: float | None = None

    @property
    def is_good(self) -> bool:
        """Whether it is within what is allowed."""
        in_order = self.spearman is None or self.least_spearman is None or self.spearman >= self.least_spearman
        return self.agreement.deviation <= self.allowed and in_order


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """A server's scores.

    Attributes:
        title: What the table calls it.
        engine: As its replies say.
        dtype: Number format, likewise.
        revision: Of the model, likewise.
        is_strict: Whether it promises the same bits in any company, so that nothing else is allowed.
        alone: The texts alone.
        findings: Its ways, compared with them.
    """

    title: str
    engine: str
    dtype: str
    revision: str
    is_strict: bool
    alone: Alone
    findings: tuple[Finding, ...]


def measure(title: str, client: RewardClient, pairs: Sequence[Pair]) -> Measured:
    """Scores the texts by every way.

    Raises:
        PalateError: A call failed, or a text that had a score alone has none in company.
    """
    info = client.model_info()
    is_strict = "strict" in info.capabilities
    alone = score_alone(client, pairs)
    allowed = 0.0 if is_strict else tolerance_of(info.provenance.dtype).batch
    findings = tuple(_ways(client, alone, allowed))
    source = info.provenance
    return Measured(title, source.engine, source.dtype, source.revision, is_strict, alone, findings)


def against(reference: Measured, measured: Measured) -> Finding:
    """The texts alone on two servers; where both compute in one number format, no more than rounding is allowed.

    Raises:
        VerifyError: They do not serve the same model, or do not score the same texts.
    """
    if measured.revision != reference.revision:
        raise VerifyError(
            f"serves revision {measured.revision}, {reference.title} revision {reference.revision}: other weights, "
            "tokenizer, template or calibration, so their scores cannot be compared"
        )
    if measured.alone.untaken.keys() != reference.alone.untaken.keys():
        raise VerifyError(f"does not score the same texts as {reference.title}")
    expected, found = reference.alone.scores, measured.alone.scores
    allowed = _between(reference.dtype, measured.dtype)
    least = allowed.spearman if len(found) >= FEWEST_FOR_SPEARMAN else None
    whole = agreement(expected, [Scored(np.arange(len(found)), found)])
    return Finding(f"against {reference.title}", whole, allowed.shift, spearman(expected, found), least)


def _ways(client: RewardClient, alone: Alone, allowed: float) -> Iterator[Finding]:
    for way, scored_by in WAYS.items():
        if batches := list(scored_by(client, alone.pairs)):  # texts of which no two share a prompt are not ranked
            yield Finding(way, agreement(alone.scores, batches), allowed)


def _between(first: str, second: str) -> Tolerance:
    if first == second:
        return Tolerance(0.0, tolerance_of(first).batch, tolerance_of(first).spearman)
    return tolerance_of(f"{first}+{second}")
