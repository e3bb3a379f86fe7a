"""Three accounts of the same calls: what callers saw, what metrics counted, what the access log says."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

from tests.checks.faults.accounting import Fate
from tests.checks.faults.case import SLACK_SECONDS
from tests.checks.soak.traffic import Sight

_LINE = re.compile(r"interceptors (\S+)/(\w+) (\w+) [\d.]+ s, request (\S+)$")
_ERROR, _UNSENT = " ERROR ", "ExecuteBatchError raised in core"

FATE_OF_CODE = {
    "OK": Fate.ANSWERED,
    "InvalidArgument": Fate.REFUSED,
    "ResourceExhausted": Fate.REFUSED,
    "Unavailable": Fate.REFUSED,
    "DeadlineExceeded": Fate.EXPIRED,
    "Cancelled": Fate.CANCELLED,
}
"""Every other code is a failure."""


def logged(log: Path) -> Iterator[tuple[str, str]]:
    """(id, code) of every call in an access log."""
    with log.open(errors="replace") as lines:
        for line in lines:
            if (found := _LINE.search(line)) is not None:
                yield found[4], found[3]


def complaints(log: Path) -> list[str]:
    """What else a log says than who called, and what stands under it: warnings, errors and the code they come from."""
    with log.open(errors="replace") as lines:
        return [line for line in lines if " DEBUG " not in line and " INFO " not in line]


def errors(log: Path) -> list[str]:
    """What a log calls an error: every bug that a call met or that nobody caught.

    Not what gRPC says of a status that it could not send any more: connections are cut here.
    """
    return [f"{log.name}: {line.strip()}" for line in complaints(log) if _ERROR in line and _UNSENT not in line]


def counted(metrics_target: str) -> tuple[int, Counter[Fate]]:
    """Calls begun, and how they ended, by the metrics; reflection and health are not counted there."""
    with urlopen(f"http://{metrics_target}/metrics", timeout=60) as page:
        families = list(text_string_to_metric_families(page.read().decode()))
    samples = [sample for family in families for sample in family.samples]
    begun = sum(int(sample.value) for sample in samples if sample.name == "grpc_server_started_total")
    ended: Counter[Fate] = Counter()
    for sample in samples:
        if sample.name == "grpc_server_handled_total":
            ended[FATE_OF_CODE.get(sample.labels["grpc_code"], Fate.FAILED)] += int(sample.value)
    return begun, ended


def disagreements(seen: Mapping[str, Fate], codes: Mapping[str, list[str]]) -> list[str]:
    """Calls of which a caller and the servers' logs cannot both be right.

    What a caller gave up or lost on the way may have ended in any way at the server, or never have come there; what he
    got, the server must have given, once.
    """
    wrong = [f"{name} was logged {len(found)} times" for name, found in codes.items() if len(found) != 1]
    wrong += [f"{name} was logged, and nobody called" for name in codes.keys() - seen.keys()]
    for name, fate in seen.items():
        told = {FATE_OF_CODE.get(code, Fate.FAILED) for code in codes.get(name, ())}
        if fate in (Fate.ANSWERED, Fate.REFUSED) and told != {fate}:
            wrong.append(f"{name} was {fate} for its caller, for the server {told or 'unknown'}")
        if Fate.FAILED in told:
            wrong.append(f"{name} failed at the server: {codes[name]}")
    return wrong


def broken_promises(sight: Sight) -> list[str]:
    """What is wrong by what callers saw alone: calls that were lost or outlived their deadline, answers in part."""
    seen = sight.count()
    return [
        f"{sight.name}: {told}"
        for told, kept in (
            (f"{sight.made} calls were made, {seen.total()} ended", sight.made == seen.total()),
            (f"answers that are not whole: {dict(sight.wrong)}", not sight.wrong.total()),
            (f"a call outlived its deadline by {sight.latest:.0f} s", sight.latest <= SLACK_SECONDS),
            (f"nobody was answered: {dict(seen)}", seen[Fate.ANSWERED] > 0),
        )
        if not kept
    ]
