"""What lies on the Hugging Face hub, by name: hub:org/name@revision, downloaded into its cache and pinned to a commit.

Only files of the kinds that a caller names are downloaded, and never more than it allows. The standard variables of
`huggingface_hub` hold: HF_HUB_CACHE, HF_HUB_OFFLINE, HF_TOKEN, HF_ENDPOINT.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from palate.file_errors import cause_of, first_cause_of

logger = logging.getLogger(__name__)

PREFIX = "hub:"
_DEFAULT_REVISION = "main"
_PART = r"[A-Za-z0-9][\w.-]*"
_SEGMENT = r"(?!\.{1,2}(/|\Z))[\w.-]+"
"""Revisions become paths in the cache, out of which "." and ".." would lead."""
_FORM = re.compile(rf"{PREFIX}(?P<repo>{_PART}/{_PART})(@(?P<revision>{_SEGMENT}(/{_SEGMENT})*))?", re.ASCII)
_FOR_NOW = frozenset({408, 429})
"""Answers below 500 that another try may not get."""


class HubError(Exception):
    """Something cannot be had from the hub by that name; the message says why, and what to do."""


class HubAway(Exception):
    """The hub does not give something that the cache lacks, which another try may mend; the message says more."""


@dataclass(frozen=True, slots=True)
class HubId:
    """A repository on the hub.

    Attributes:
        repo: As org/name.
        revision: Branch, tag or commit.
    """

    repo: str
    revision: str

    @property
    def name(self) -> str:
        """Its last part."""
        return self.repo.rpartition("/")[2]

    def __str__(self) -> str:
        return f"{PREFIX}{self.repo}@{self.revision}"


@dataclass(frozen=True, slots=True)
class FileKinds:
    """Which files of a repository are wanted.

    Attributes:
        kind: Of repository.
        patterns: Of their names, as in `fnmatch`; "*" takes "/" too.
        unwanted: Of names that are left out all the same.
        max_bytes: Of all of them together.
    """

    kind: Literal["model", "dataset"]
    patterns: Sequence[str]
    unwanted: Sequence[str]
    max_bytes: int


def is_on_hub(place: Path | str) -> bool:
    """Whether `place` names something on the hub, and no file or folder."""
    return str(place).startswith(PREFIX)


def hub_id(place: Path | str) -> HubId:
    """The repository that `place` names.

    Raises:
        HubError: It is no such name.
    """
    found = _FORM.fullmatch(str(place))
    if found is None:
        raise HubError(f"{place} is no name on the hub; write {PREFIX}org/name, or {PREFIX}org/name@revision")
    return HubId(found["repo"], found["revision"] or _DEFAULT_REVISION)


def fetch(hub: HubId, kinds: FileKinds) -> Path:
    """The folder in the hub's cache that holds the wanted files of one commit; its name is the commit.

    They are downloaded where they are not there yet. Where the hub cannot be reached, what the cache holds of that
    revision is used, which is logged, but never a part of it for the whole.

    Raises:
        HubError: There is no such repository or revision, it is too large, or the network is switched off and the
            cache lacks it.
        HubAway: The hub cannot be reached, and the cache lacks it.
    """
    try:
        folder = _fetched(hub, kinds)
    except HubError:
        raise
    except Exception as error:  # those of its HTTP library have no root that it exports
        raise _explained(hub, kinds, error) from error
    logger.info("%s is commit %s, in %s", hub, folder.name, folder)
    return folder


def _fetched(hub: HubId, kinds: FileKinds) -> Path:
    """Downloads the very commit whose sizes were asked: the branch may move in between."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import DryRunError

    wanted: dict[str, Any] = {
        "repo_id": hub.repo,
        "repo_type": kinds.kind,
        "allow_patterns": list(kinds.patterns),
        "ignore_patterns": list(kinds.unwanted),
    }
    try:
        files = snapshot_download(**wanted, revision=hub.revision, dry_run=True)
    except DryRunError as error:
        logger.warning("the hub does not give %s (%s); its cache is asked", hub, first_cause_of(error))
        folder = Path(snapshot_download(**wanted, revision=hub.revision))
        _check_listed(hub, kinds, folder.name)
        return folder
    _check_size(hub, files, kinds.max_bytes)
    return Path(snapshot_download(**wanted, revision=files[0].commit_hash))


def _check_listed(hub: HubId, kinds: FileKinds, commit: str) -> None:
    """A model that lacks a file does not load; rows that are missing nobody misses."""
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    if kinds.kind == "model":
        return
    try:
        get_cached_repo_tree(hub.repo, repo_type=kinds.kind, revision=commit)
    except CachedRepoTreeNotFoundError as error:
        raise HubError(
            f"the hub's cache does not say which files {hub} has, so what it holds may be a part of them. "
            f"{_by_hand(hub, kinds)}"
        ) from error


def _check_size(hub: HubId, files: Sequence[Any], most: int) -> None:
    if not files:
        raise HubError(f"{hub} holds no file of the kinds that are read here; does it hold something else?")
    size = sum(file.file_size for file in files)
    if size > most:
        raise HubError(f"{hub} has {size} bytes to download, more than the {most} that are allowed")


def _explained(hub: HubId, kinds: FileKinds, error: Exception) -> HubError | HubAway:
    from huggingface_hub import errors

    if isinstance(error, errors.RevisionNotFoundError):
        return HubError(f"{hub.repo} on the hub has no revision {hub.revision}; give a branch, a tag or a whole commit")
    if isinstance(error, errors.RepositoryNotFoundError):
        return HubError(
            f"the hub shows no {kinds.kind} {hub.repo}: the name is wrong, or it is private or gated; then set "
            "HF_TOKEN to a token that may read it"
        )
    kind = HubError if _will_stay(error) else HubAway
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        return kind(
            f"{hub} is not in the hub's cache as a whole, and the hub cannot be asked ({first_cause_of(error)}). "
            f"{_by_hand(hub, kinds)}"
        )
    remedy = "try again" if kind is HubAway else "mend that"
    return kind(f"{hub} cannot be downloaded: {cause_of(error)}; {remedy}, or give a folder")


def _will_stay(error: BaseException) -> bool:
    """Whether another try would end the same: a name that is none, a network switched off, a request refused."""
    from huggingface_hub import errors

    causes = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    if any(isinstance(cause, errors.OfflineModeIsEnabled | errors.HFValidationError) for cause in causes):
        return True
    statuses = [cause.response.status_code for cause in causes if isinstance(cause, errors.HfHubHTTPError)]
    return bool(statuses) and statuses[-1] < 500 and statuses[-1] not in _FOR_NOW


def _by_hand(hub: HubId, kinds: FileKinds) -> str:
    flag = " --repo-type dataset" if kinds.kind == "dataset" else ""
    return (
        f"Where there is a network, run `hf download {hub.repo}{flag} --revision {hub.revision}`; give the folder that "
        "it prints, or set HF_HUB_CACHE to a copy of its cache"
    )
