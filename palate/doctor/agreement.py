"""Compares the replicas of a role with each other, and a policy with its reference: pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from palate.client import PolicyInfo
from palate.doctor.findings import Answer, Finding, Role, bad, good, warning
from palate.doctor.replica import Examined, Golden, named
from palate.models.tolerances import spread, tolerance_of

T = TypeVar("T")

_ROLL_OUT = "A rollout is under way, or one replica was given another folder: wait for it to end, or restart that one"
_ENGINES = "Their answers agree only within what number formats allow: start all with the same --engine and --dtype"
_PUBLISH = (
    "A publish is under way, or a replica missed one. A running trainer brings it to the newest weights before more "
    "rollouts; without one, resume the run or restart all replicas"
)


def compare(examined: Sequence[Examined]) -> Iterator[Finding]:
    """Findings about replicas together; of a role with one there is nothing to compare."""
    for role in Role:
        mine = [each for each in examined if each.subject.role is role]
        rewards = [(each.subject.address.target, each.golden) for each in mine if each.golden is not None]
        policies = [(each.subject.address.target, each.policy) for each in mine if each.policy is not None]
        count = f"all {len(mine)}"
        if len(rewards) > 1:
            yield from (Finding(role, count, answer) for answer in _rewards(rewards))
        if len(policies) > 1:
            yield from (Finding(role, count, answer) for answer in _policies(policies))
    yield from _with_reference(examined)


def _rewards(replicas: Sequence[tuple[str, Golden]]) -> Iterator[Answer]:
    revision = _same("revisions", replicas, lambda each: each.info.provenance.revision, _ROLL_OUT)
    yield revision
    engines = [(target, f"{each.info.provenance.engine} {each.info.provenance.dtype}") for target, each in replicas]
    yield _same("engines", engines, str, _ENGINES, warning)
    if not revision.remedy and any(golden.scores for _, golden in replicas):
        yield _scores([golden for _, golden in replicas])


def _scores(replicas: Sequence[Golden]) -> Answer:
    """Whether all score the built-in texts alike, within what their number formats allow."""
    first, *others = replicas
    if any(other.scores.keys() != first.scores.keys() for other in others):
        return bad("scores", "some score texts that others do not", "See which replica fails above, and its log")
    scale = spread(first.scores.values())
    deviation = max(abs(other.scores[at] - score) for other in others for at, score in first.scores.items()) / scale
    allowed = _allowed([each.info.provenance.dtype for each in replicas])
    told = f"at most {deviation:.1e} SD apart on {len(first.scores)} texts, {allowed:g} allowed"
    if deviation <= allowed:
        return good("scores", told)
    remedy = "`palate verify --model FOLDER --against ADDRESS` of each replica says which one is off"
    return bad("scores", told, remedy)


def _allowed(dtypes: Sequence[str]) -> float:
    """Other machines and engines share no batches, so rounding of each counts against float32's."""
    tolerances = [tolerance_of(dtype) for dtype in dtypes]
    return max(max(each.batch, each.shift) for each in tolerances)


def _policies(replicas: Sequence[tuple[str, PolicyInfo]]) -> Iterator[Answer]:
    yield _same("versions", replicas, named, _PUBLISH)
    yield _same("engines", replicas, lambda each: f"{each.engine} {each.dtype}", _ENGINES, warning)
    yield _same("tokenizers", replicas, lambda each: each.tokenizer_digest, _ROLL_OUT)


def _with_reference(examined: Sequence[Examined]) -> Iterator[Finding]:
    """The reference must read token ids as the policy does."""
    found = [
        (f"{each.subject.role} {each.subject.address.target}", each.policy)
        for each in examined
        if each.policy is not None
    ]
    if {each.subject.role for each in examined if each.policy is not None} >= {Role.POLICY, Role.REF_POLICY}:
        remedy = "The KL between them means nothing: give both the same tokenizer, that of the run's --policy folder"
        answer = _same("tokenizers", found, lambda each: each.tokenizer_digest, remedy)
        yield Finding("policies", "with reference", answer)


def _same(
    check: str,
    replicas: Sequence[tuple[str, T]],
    of: Callable[[T], str],
    remedy: str,
    verdict: Callable[[str, str, str], Answer] = bad,
) -> Answer:
    """Whether `of` says the same of all; else who says what, which is as bad as `verdict` says."""
    by_value: dict[str, list[str]] = {}
    for target, value in replicas:
        by_value.setdefault(of(value), []).append(target)
    if len(by_value) == 1:
        return good(check, f"all have {next(iter(by_value))}")
    return verdict(check, "; ".join(f"{', '.join(targets)}: {value}" for value, targets in by_value.items()), remedy)
