"""Who is calling: bearer tokens and client certificates, named in one file that is read again when it changes."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import yaml

from palate.file_errors import cause_of
from palate.yaml_document import KeyGivenTwice, read_yaml
from services.runtime.errors import Unauthenticated
from services.runtime.limits import UNLIMITED, CallLimits
from services.runtime.roles import OPEN, TABLE, Role, check_roles

logger = logging.getLogger(__name__)

_BEARER = "bearer "
_FIELDS = {"name", "roles", "token_sha256", "certificate", "expires", "max_calls", "calls_per_second"}
_UNIQUE = ("name", "token_sha256", "certificate")
_DIGEST = re.compile("[0-9a-fA-F]{64}")
_RATES = (1e-6, 1e9)
"""Calls a second that can be counted."""


class IdentityFileError(Exception):
    """The identities file is wrong; the message names the entry."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody who may call.

    Attributes:
        name: For logs and fairness.
        roles: What the identity may do.
        token_sha256: SHA-256 of the bearer token, hexadecimal in small letters; None for certificates.
        certificate: Common name of the client certificate; None for tokens.
        expires: The moment from which it counts no more; None = never.
        limits: How much it may call.
    """

    name: str
    roles: frozenset[Role]
    token_sha256: str | None
    certificate: str | None
    expires: datetime | None
    limits: CallLimits = UNLIMITED

    def valid_at(self, moment: datetime) -> bool:
        """Whether it still counts."""
        return self.expires is None or moment < self.expires


class Identities:
    """The identities of a YAML file: a list of {name, roles, token_sha256 | certificate, expires?, max_calls?,
    calls_per_second?}.

    The file is looked at again every second at most, so a token that is taken out stops working without a restart. A
    file that has become wrong keeps the last good state and says so in the log.

    Raises:
        IdentityFileError: The file is wrong when it is read first.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries = read_identities(path)
        self._stamp = stamp_of(path)
        self._looked = time.monotonic()

    def of_token(self, token: str) -> Identity | None:
        """The identity with this token; takes the same time whichever entry matches, and when none does."""
        digest, found = hashlib.sha256(token.encode()).hexdigest(), None
        for entry in self._current():
            if entry.token_sha256 is not None and hmac.compare_digest(entry.token_sha256, digest):
                found = entry
        return found

    def of_certificate(self, common_names: Sequence[str]) -> Identity | None:
        """The identity with one of these common names."""
        return next((entry for entry in self._current() if entry.certificate in common_names), None)

    def _current(self) -> tuple[Identity, ...]:
        if time.monotonic() - self._looked > 1.0:
            self._looked = time.monotonic()
            self._reload()
        return self._entries

    def _reload(self) -> None:
        try:
            stamp = stamp_of(self._path)
            if stamp != self._stamp:
                self._entries, self._stamp = read_identities(self._path), stamp
        except (IdentityFileError, OSError) as error:
            logger.error("the identities file cannot be read again, the last good state stays: %s", error)


class Guard:
    """Decides whether a call may go on. Without identities everyone may, which is for loopback alone."""

    def __init__(self, identities: Identities | None) -> None:
        self._identities = identities

    def check(
        self, method: str, metadata: Mapping[str, str], common_names: Callable[[], Sequence[str]]
    ) -> Identity | None:
        """Who calls; None where everyone may.

        Args:
            method: Full name, "/package.Service/Method".
            metadata: The call's metadata.
            common_names: Gives those of the client's certificate, which TLS has already verified.

        Raises:
            Unauthenticated: No credentials, or none that counts.
            PermissionDenied: The caller's roles may not call this.
        """
        if self._identities is None or method in OPEN:
            return None
        identity = self._identify(metadata, common_names)
        check_roles(identity.name, identity.roles, TABLE.get(method, frozenset()), f"call {method}")
        return identity

    def _identify(self, metadata: Mapping[str, str], common_names: Callable[[], Sequence[str]]) -> Identity:
        assert self._identities is not None
        header = metadata.get("authorization", "")
        if header.lower().startswith(_BEARER):
            identity = self._identities.of_token(header[len(_BEARER) :])
        else:
            identity = self._identities.of_certificate(common_names())
        if identity is None:
            raise Unauthenticated("no valid credentials: send a bearer token, or a client certificate that is listed")
        if not identity.valid_at(datetime.now(UTC)):
            raise Unauthenticated(f"the credentials of {identity.name} have expired; get new ones")
        return identity


def read_identities(path: Path) -> tuple[Identity, ...]:
    """Reads and checks the file.

    Raises:
        IdentityFileError: It is missing, no list, an entry is wrong, or two have the same name, token or certificate.
    """
    try:
        document = read_yaml(path)
    except OSError as error:
        raise IdentityFileError(f"{path} cannot be read: {cause_of(error)}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise IdentityFileError(f"{path} is no YAML that can be read{_place_of(error)}") from None
    if not isinstance(document, list) or not document:
        raise IdentityFileError(f"{path} must hold a list with at least one identity")
    entries = tuple(_identity(entry, f"{path}, entry {number}") for number, entry in enumerate(document, 1))
    for field in _UNIQUE:
        _check_unique(entries, field, path)
    return entries


def _place_of(error: Exception) -> str:
    """Where YAML ends to be any, and what it may be. Never the words: what stands there may be a digest or a token."""
    if isinstance(error, KeyGivenTwice):
        return f": a key is given twice, again in line {error.line}; keep one"
    mark = getattr(error, "problem_mark", None)
    place = "" if mark is None else f": look at line {mark.line + 1}, column {mark.column + 1}, and before it"
    return f"{place} (a quotation mark, an indent, a tag or an alias)"


def _check_unique(entries: Sequence[Identity], field: str, path: Path) -> None:
    """Who calls must not depend on the order of the file."""
    given = Counter(value for entry in entries if (value := getattr(entry, field)) is not None)
    twice = [repr(entry.name) for entry in entries if given[getattr(entry, field)] > 1]
    if twice:
        raise IdentityFileError(f"{path}: each {field} belongs to one entry, and is in: {', '.join(twice)}")


def _identity(entry: Any, where: str) -> Identity:
    if not isinstance(entry, dict) or not _is_name(entry.get("name")) or not set(entry) <= _FIELDS:
        known = ", ".join(sorted(_FIELDS))
        raise IdentityFileError(f"{where}: an identity has the fields {known}, and needs a name, a line of text")
    if ("token_sha256" in entry) == ("certificate" in entry):
        raise IdentityFileError(f"{where} ({entry['name']}): give either token_sha256 or certificate")
    digest = entry.get("token_sha256")
    if "token_sha256" in entry and not (isinstance(digest, str) and _DIGEST.fullmatch(digest)):
        raise IdentityFileError(f"{where} ({entry['name']}): token_sha256 is 64 hexadecimal digits, in quotes")
    if "certificate" in entry and not _is_name(entry["certificate"]):
        raise IdentityFileError(f"{where} ({entry['name']}): certificate is the common name of one, a line of text")
    roles = entry.get("roles", ())
    if not isinstance(roles, list | tuple):
        raise IdentityFileError(f"{where} ({entry['name']}): roles is a list; roles are {', '.join(Role)}")
    if not roles or not all(isinstance(role, str) and role in set(Role) for role in roles):
        raise IdentityFileError(
            f"{where} ({entry['name']}): roles is empty or has another; roles are {', '.join(Role)}"
        )
    roles = frozenset(Role(role) for role in roles)
    expires, limits = _moment(entry.get("expires"), where), _limits(entry, f"{where} ({entry['name']})")
    digest = None if digest is None else digest.lower()
    return Identity(entry["name"], roles, digest, entry.get("certificate"), expires, limits)


def _limits(entry: dict[str, Any], where: str) -> CallLimits:
    most, rate = entry.get("max_calls"), entry.get("calls_per_second")
    if most is not None and not (type(most) is int and most >= 1):
        raise IdentityFileError(f"{where}: max_calls is how many calls it may have at once, 1 or more")
    if rate is not None and not (type(rate) in (int, float) and _RATES[0] <= rate <= _RATES[1]):
        raise IdentityFileError(f"{where}: calls_per_second is a number from {_RATES[0]:f} to {_RATES[1]:.0f}")
    return CallLimits(most, rate)


def _is_name(value: Any) -> bool:
    """Names are in logs and messages, of which each is a line."""
    return isinstance(value, str) and bool(value) and value.isprintable()


def _moment(value: Any, where: str) -> datetime | None:
    if value is None:
        return None
    if isinstance(value, datetime):
        return value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    raise IdentityFileError(f"{where}: expires is a date or a time, e.g. 2027-01-31 or 2027-01-31T12:00:00Z")


def stamp_of(path: Path) -> tuple[int, int, int]:
    """What changes when a file does, also where it is a link to another one, as Kubernetes makes them."""
    status = path.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino
