"""What a question to a replica, or to all of a role, gave: a verdict, what was found, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What a server is for in a deployment."""

    REWARD = "reward"
    POLICY = "policy"
    REF_POLICY = "ref policy"

    @property
    def service(self) -> str:
        """Its gRPC service."""
        return "palate.v1.RewardService" if self is Role.REWARD else "palate.v1.PolicyService"


class Verdict(StrEnum):
    """Whether something must be done."""

    GOOD = "good"
    WARNING = "warning"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Answer:
    """What one question gave.

    Attributes:
        check: What was asked, in a word or two.
        verdict: Whether something must be done.
        found: What was found, in one line.
        remedy: What to do; empty where nothing must be.
    """

    check: str
    verdict: Verdict
    found: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """An answer and who gave it; `replica` is an address, or says how many were compared."""

    role: str
    replica: str
    answer: Answer


def good(check: str, found: str) -> Answer:
    """Nothing to do."""
    return Answer(check, Verdict.GOOD, found)


def warning(check: str, found: str, remedy: str) -> Answer:
    """It works, and will not for long, or not as meant."""
    return Answer(check, Verdict.WARNING, found, remedy)


def bad(check: str, found: str, remedy: str) -> Answer:
    """Something is wrong."""
    return Answer(check, Verdict.BAD, found, remedy)


def is_healthy(findings: Sequence[Finding]) -> bool:
    """Whether there is nothing bad."""
    return all(each.answer.verdict is not Verdict.BAD for each in findings)
