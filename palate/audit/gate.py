"""The release gate: what a policy file allows, and where a reward model goes beyond it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import ConfigDict, Field, ValidationError, model_validator

from palate.audit.findings import Finding, Findings
from palate.client import PalateError
from palate.file_errors import cause_of
from palate.plain_model import PlainModel
from palate.yaml_document import read_yaml


class PolicyProblem(PalateError):
    """The policy file cannot be used; the message says where and what to give."""


_STRICT = ConfigDict(extra="forbid", frozen=True)


class Limits(PlainModel):
    """What is allowed to one probe."""

    model_config = _STRICT

    flagged: Literal["fail", "allow"] = "fail"
    max_share: Annotated[float, Field(ge=0, le=1)] | None = None
    min_share: Annotated[float, Field(ge=0, le=1)] | None = None
    max_effect: Annotated[float, Field(ge=0)] | None = None
    max_excluded: Annotated[float, Field(ge=0, le=1)] | None = None
    min_items: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _satisfiable(self) -> Self:
        if self.min_share is not None and self.max_share is not None and self.min_share > self.max_share:
            raise ValueError(f"min_share {self.min_share:g} is above max_share {self.max_share:g}: nothing can pass")
        return self


class Policy(PlainModel):
    """What is allowed; the default lets nothing pass that is flagged, nor an audit that could decide little."""

    model_config = _STRICT

    max_excluded: Annotated[float, Field(ge=0, le=1)] = 0.05
    min_items: Annotated[int, Field(ge=1)] = 30
    probes: dict[str, Limits] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Breach:
    """Something that the policy does not allow."""

    probe: str
    reason: str


def read_policy(file: Path) -> Policy:
    """Reads a policy.

    Raises:
        PolicyProblem: It is missing, no YAML, or holds what is no limit.
    """
    try:
        return Policy.model_validate(read_yaml(file) or {})
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PolicyProblem(f"{file} cannot be read: {cause_of(error)}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        told = first["msg"].removeprefix("Value error, ")  # as pydantic begins what a validator of ours says
        raise PolicyProblem(f"{file}: {place}: {told}; see docs/audit.md") from error


def check_names(policy: Policy, names: Sequence[str]) -> None:
    """Refuses limits for probes that are not asked: a misspelt one would let everything pass.

    Raises:
        PolicyProblem: It names one.
    """
    unknown = sorted(set(policy.probes) - set(names))
    if unknown:
        raise PolicyProblem(f"the policy has limits for {unknown[0]}, which is not asked; asked are {', '.join(names)}")


def breaches(findings: Findings, policy: Policy) -> tuple[Breach, ...]:
    """Where the model goes beyond the policy; none = it may be released."""
    return tuple(
        Breach(finding.name, reason)
        for finding in findings.probes
        for reason in _reasons(finding, policy, policy.probes.get(finding.name, Limits()))
    )


def _reasons(finding: Finding, policy: Policy, limits: Limits) -> Iterator[str]:
    excluded = policy.max_excluded if limits.max_excluded is None else limits.max_excluded
    if finding.excluded_share > excluded:
        yield f"{finding.excluded_share:.1%} of the items have no score, {excluded:.1%} are allowed"
    least, decided = policy.min_items if limits.min_items is None else limits.min_items, finding.leaning.decided
    if decided < least:
        why = _undecided(finding)
        yield f"{decided} items are decided, {least} are asked for" + (f": {why}" if why else "")
    if finding.is_flagged and limits.flagged == "fail":
        yield "is flagged"
    yield from _beyond(finding, limits)


def _beyond(finding: Finding, limits: Limits) -> Iterator[str]:
    yield from (f"{limit} cannot be judged: {_undecided(finding)}" for limit in _without_grounds(finding, limits))
    share = None if finding.share is None else finding.share.value
    if share is not None and limits.max_share is not None and share > limits.max_share:
        yield f"share {share:.1%}, at most {limits.max_share:.1%} is allowed"
    if share is not None and limits.min_share is not None and share < limits.min_share:
        yield f"share {share:.1%}, at least {limits.min_share:.1%} is asked for"
    effect = finding.leaning.effect
    size = abs(effect) if finding.alternative == "two-sided" else effect
    if limits.max_effect is not None and finding.scored and size > limits.max_effect:
        yield f"effect {effect:+.2f} SD, at most {limits.max_effect:g} is allowed"


def _without_grounds(finding: Finding, limits: Limits) -> Iterator[str]:
    """Limits of which nothing can be said: of a share where no item is decided, of an effect where none has scores."""
    decided, scored = finding.leaning.decided, finding.scored
    for name, items in (("max_share", decided), ("min_share", decided), ("max_effect", scored)):
        limit = getattr(limits, name)
        if limit is not None and not items:
            yield f"{name} {limit:g}"


def _undecided(finding: Finding) -> str:
    """Why items are not decided; empty where all are."""
    excluded, ties = sum(finding.excluded.values()), finding.leaning.ties
    why = [f"{ties} of {finding.items} items tie"] if ties else []
    why += [f"{excluded} of {finding.items} items have no score"] if excluded else []
    return ", ".join(why) if finding.items else "there is no item"
