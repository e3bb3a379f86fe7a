"""Examines one replica: the way to it, its health, what it has loaded, its scores; as far as it can be asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from palate.client import (
    CallError,
    ChannelOptions,
    Failed,
    ItemErrorCode,
    ModelInfo,
    PalateError,
    PermissionDenied,
    PolicyClient,
    PolicyInfo,
    RewardClient,
    Scored,
    ScoreReply,
    Unauthenticated,
)
from palate.client.address import Address, host_and_port
from palate.doctor.certificate import examine_certificate
from palate.doctor.findings import Answer, Role, Verdict, bad, good, warning
from palate.doctor.metrics import examine_metrics
from palate.health import LIVE, ask_health
from palate.models.probe_texts import PROBES
from palate.models.tolerances import spread, tolerance_of

_CREDENTIALS = (
    "Give --token-file (or --certificate and --key) of an identity that the server's --identities file lists with a "
    "role for this; the file holds the SHA-256 of the token without its line's end, and is read again when it changes"
)
_FAKE = "Its answers mean nothing: start it with a real engine (--engine) before anything relies on it"


@dataclass(frozen=True, slots=True)
class Subject:
    """A replica to examine.

    Attributes:
        role: What it is for.
        address: Where it is.
        options: How to get in.
        timeout: Seconds of each call.
        model: Name of the reward model; empty = the server's default.
        metrics_port: Port of its Prometheus endpoint; None = not asked.
    """

    role: Role
    address: Address
    options: ChannelOptions
    timeout: float
    model: str = ""
    metrics_port: int | None = None


@dataclass(frozen=True, slots=True)
class Golden:
    """What a replica says of the built-in texts.

    Attributes:
        info: What it has loaded.
        scores: Index of the text → its score, where it has one.
    """

    info: ModelInfo
    scores: dict[int, float]


@dataclass(frozen=True, slots=True)
class Examined:
    """What a replica said; `golden` and `policy` are None where it did not come to that."""

    subject: Subject
    answers: tuple[Answer, ...]
    golden: Golden | None = None
    policy: PolicyInfo | None = None


def examine(subject: Subject) -> Examined:
    """Asks everything that can be asked."""
    answers = [*_certificate(subject)]
    if any(answer.verdict is Verdict.BAD for answer in answers):
        return Examined(subject, tuple(answers))
    try:
        health, milliseconds = ask_health(
            subject.address.target, subject.options, (LIVE, "", subject.role.service), subject.timeout
        )
    except PalateError as error:
        return Examined(subject, (*answers, bad("connection", "no answer", str(error))))
    answers.append(good("connection", f"answers in {milliseconds:.1f} ms"))
    found = _reward(subject) if subject.role is Role.REWARD else _policy(subject)
    answers += [_ready(subject.role, health, found), *found.answers, *_metrics(subject)]
    return replace(found, answers=tuple(answers))


def _certificate(subject: Subject) -> Iterator[Answer]:
    place = host_and_port(subject.address.target)
    if subject.options.tls is not None and place is not None:
        yield from examine_certificate(*place, subject.options.tls, subject.timeout)


def _metrics(subject: Subject) -> Iterator[Answer]:
    place = host_and_port(subject.address.target)
    if subject.metrics_port is not None and place is not None:
        yield examine_metrics(place[0], subject.metrics_port, subject.role, subject.timeout)


def _ready(role: Role, health: dict[str, str], found: Examined) -> Answer:
    """What health says of each name, and what it means beside whether calls are answered."""
    told = ", ".join(f"{name or 'all'} {status}" for name, status in health.items())
    if health.get(role.service) == "SERVING" and health.get("") == "SERVING":
        return good("health", told)
    if role.service not in health:
        remedy = f"Another service is there: give the address of one that serves {role.service}"
        return bad("health", told or "knows no name", remedy)
    if found.golden is not None or found.policy is not None:
        remedy = "It drains: it was told to stop and takes late calls. Another must take its place; ask again soon"
        return bad("health", told, remedy)
    return bad("health", told, "It loads or drains; its log says which. `palate_ready` in its metrics is 1 when ready")


def _reward(subject: Subject) -> Examined:
    target, options = subject.address.target, subject.options
    with RewardClient(target, timeout=subject.timeout, model=subject.model, options=options) as client:
        try:
            info = client.model_info()
            replies = [client.score([p for p, _ in PROBES], [c for _, c in PROBES]) for _ in range(2)]
        except CallError as error:
            return Examined(subject, (_refused(error),))
    answers = (_loaded(info), *_golden(*replies))
    scores = {at: each.score for at, each in enumerate(replies[0].results) if isinstance(each, Scored)}
    return Examined(subject, answers, golden=Golden(info, scores))


def _loaded(info: ModelInfo) -> Answer:
    told = f"{info.provenance.model}, {info.provenance.engine} {info.provenance.dtype}, {info.provenance.revision}"
    return warning("model", told, _FAKE) if info.provenance.engine == "fake" else good("model", told)


def _golden(first: ScoreReply, second: ScoreReply) -> Iterator[Answer]:
    """The built-in texts, asked twice."""
    if first.provenance != second.provenance:
        yield warning("scores", "the model was exchanged meanwhile", "Ask again when it is done")
        return
    failed = [result for result in first.results if isinstance(result, Failed)]
    broken = [result for result in failed if result.code is ItemErrorCode.FAILED]
    if broken or len(failed) == len(first.results):
        worst = (broken or failed)[0]
        yield bad("scores", f"{len(failed)} of {len(first.results)} built-in texts have none", worst.message)
        return
    yield _repeated(first, second, f"{len(first.results) - len(failed)} of {len(first.results)} built-in texts scored")


def _repeated(first: ScoreReply, second: ScoreReply, told: str) -> Answer:
    pairs = [(a, b) for a, b in zip(first.results, second.results, strict=True) if isinstance(a, Scored)]
    again = [(a.score, b.score) for a, b in pairs if isinstance(b, Scored)]
    if len(again) < len(pairs):
        return bad("scores", f"{told}, {len(again)} at the second time", "See the server's log, and what loads it")
    deviation = max(abs(a - b) for a, b in again) / spread(a for a, _ in again)
    if deviation == 0:
        return good("scores", f"{told}, twice the same bits")
    if deviation <= tolerance_of(first.provenance.dtype).batch:
        remedy = "What is computed beside a text changes last bits; --strict of the server holds them"
        return warning("scores", f"{told}, apart by {deviation:.1e} SD when asked again", remedy)
    remedy = "Scores depend on what else is computed: `palate verify --model FOLDER --against ADDRESS` shows how"
    return bad("scores", f"{told}, apart by {deviation:.1e} SD when asked again", remedy)


def _policy(subject: Subject) -> Examined:
    with PolicyClient(subject.address.target, timeout=subject.timeout, options=subject.options) as client:
        try:
            info = client.policy_info()
        except CallError as error:
            return Examined(subject, (_refused(error),))
    return Examined(subject, tuple(_weights(subject.role, info)), policy=info)


def _weights(role: Role, info: PolicyInfo) -> Iterator[Answer]:
    told = f"{info.model}, {info.engine} {info.dtype}, {named(info)}"
    yield warning("policy", told, _FAKE) if info.engine == "fake" else good("policy", told)
    if role is Role.POLICY and info.frozen:
        yield bad("publishing", "it is frozen", "Nothing can be published to it: start it without --frozen")
    if role is Role.REF_POLICY and not info.frozen:
        remedy = "A trainer that is given this address by mistake changes the reference: start it with --frozen"
        yield warning("publishing", "it is not frozen", remedy)


def named(info: PolicyInfo) -> str:
    """Which weights it serves."""
    version = info.policy_version
    if not version.run_id:
        return f"as loaded, {version.digest}"
    return f"run {version.run_id}, incarnation {version.incarnation}, step {version.step}, {version.digest}"


def _refused(error: CallError) -> Answer:
    if isinstance(error, Unauthenticated):
        return bad("credentials", "not let in", f"{error}. {_CREDENTIALS}")
    if isinstance(error, PermissionDenied):
        return bad("credentials", "let in, without the role", f"{error}. {_CREDENTIALS}")
    return bad("calls", f"not answered ({error.code.name})", str(error))
