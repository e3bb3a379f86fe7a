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
_FORM = re.compile(rf"{PREFIX}(?P<repo>{_PART}/{_PART})(@(?P<revision>[\w.-]+(/[\w.-]+)*))?", re.ASCII)


class HubError(Exception):
    """Something cannot be had from the hub; the message says why, and what to do."""


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
    revision is used, which is logged.

    Raises:
        HubError: There is no such repository or revision, it is too large, or neither hub nor cache has it.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import DryRunError

    wanted: dict[str, Any] = {
        "repo_id": hub.repo,
        "repo_type": kinds.kind,
        "revision": hub.revision,
        "allow_patterns": list(kinds.patterns),
        "ignore_patterns": list(kinds.unwanted),
    }
    try:
        try:
            _check_size(hub, snapshot_download(**wanted, dry_run=True), kinds.max_bytes)
        except DryRunError as error:
            logger.warning("the hub does not give %s (%s); its cache is asked", hub, first_cause_of(error))
        folder = Path(snapshot_download(**wanted))
    except HubError:
        raise
    except Exception as error:  # those of its HTTP library have no root that it exports
        raise HubError(_explained(hub, kinds, error)) from error
    logger.info("%s is commit %s, in %s", hub, folder.name, folder)
    return folder


def _check_size(hub: HubId, files: Sequence[Any], most: int) -> None:
    if not files:
        raise HubError(f"{hub} holds no file of the kinds that are read here; does it hold something else?")
    size = sum(file.file_size for file in files)
    if size > most:
        raise HubError(f"{hub} has {size} bytes to download, more than the {most} that are allowed")


def _explained(hub: HubId, kinds: FileKinds, error: Exception) -> str:
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, RevisionNotFoundError):
        return f"{hub.repo} on the hub has no revision {hub.revision}; give a branch, a tag or a whole commit"
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"the hub shows no {kinds.kind} {hub.repo}: the name is wrong, or it is private or gated; then set "
            "HF_TOKEN to a token that may read it"
        )
    if isinstance(error, LocalEntryNotFoundError):
        flag = " --repo-type dataset" if kinds.kind == "dataset" else ""
        return (
            f"{hub} is not in the hub's cache, and the hub cannot be asked ({first_cause_of(error)}). Where there is a "
            f"network, run `hf download {hub.repo}{flag} --revision {hub.revision}`; give the folder that it prints, "
            "or set HF_HUB_CACHE to a copy of its cache"
        )
    return f"{hub} cannot be downloaded: {cause_of(error)}; try again, or give a folder"
