"""Verifies one server after the other, and compares each with the first that computes in float32."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from palate.client import PalateError
from palate.local_server import ServerStartError
from palate.models.probe_texts import Pair
from palate.verify.findings import Finding, Measured, against, measure
from palate.verify.subject import Subject, open_subject
from palate.verify.ways import VerifyError


@dataclass(frozen=True, slots=True)
class Problem:
    """A server of which nothing could be found, and why."""

    title: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Verified:
    """A server and all that was found of it."""

    measured: Measured
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """All of it.

    Attributes:
        asked: How many texts there were.
        reference: What the others were compared with; None where nothing could be measured.
        verified: Servers, in the order in which they were asked.
        problems: Those of which nothing is known, or nothing that can be compared.
    """

    asked: int
    reference: Measured | None
    verified: tuple[Verified, ...]
    problems: tuple[Problem, ...]

    @property
    def is_good(self) -> bool:
        """Whether everything could be asked and is within what is allowed."""
        good = all(finding.is_good for each in self.verified for finding in each.findings)
        return good and bool(self.verified) and not self.problems


def verify(subjects: Iterable[Subject], pairs: Sequence[Pair], timeout: float, tell: Callable[[str], None]) -> Report:
    """Measures every server, one at a time.

    Args:
        subjects: The servers.
        pairs: Texts to score.
        timeout: Seconds of a call.
        tell: Is given the title of the server that is measured now.
    """
    measured: list[Measured] = []
    problems: list[Problem] = []
    for subject in subjects:
        tell(subject.title)
        try:
            with open_subject(subject, timeout) as client:
                measured.append(measure(subject.title, client, pairs))
        except (PalateError, ServerStartError) as error:
            problems.append(Problem(subject.title, str(error)))
    reference = next((each for each in measured if each.dtype == "float32"), measured[0] if measured else None)
    verified = [_compared(each, reference, problems) for each in measured]
    return Report(len(pairs), reference, tuple(verified), tuple(problems))


def _compared(measured: Measured, reference: Measured | None, problems: list[Problem]) -> Verified:
    if reference is None or measured is reference:
        return Verified(measured, measured.findings)
    try:
        return Verified(measured, (*measured.findings, against(reference, measured)))
    except VerifyError as error:
        problems.append(Problem(measured.title, str(error)))
        return Verified(measured, measured.findings)
