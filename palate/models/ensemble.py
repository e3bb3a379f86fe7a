"""An ensemble of several folders: a `palate.json` that names them, each pinned by its revision."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from palate.models.document import FILE_NAME, complaints_of, read_document, write_document
from palate.models.folder import FolderError
from palate.models.manifest import Calibration, Digests, build, digest_folder, digest_of, load_manifest, said_by
from palate.models.manifest_fields import ENSEMBLE_FIELDS, built, check_fields


@dataclass(frozen=True, slots=True)
class Member:
    """One folder of an ensemble.

    Attributes:
        path: From the ensemble's folder on.
        revision: What the folder must be.
    """

    path: str
    revision: str

    def __post_init__(self) -> None:
        check_fields(self, ENSEMBLE_FIELDS, "members.")


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Folders that are served under one name.

    Attributes:
        members: At least two; they share tokenizer, template and how the score is read.
        logit_scale: Factor on raw differences in the Bradley–Terry probability.
        calibration: Mean scores of reference samples, where they were measured.
        kind: What tells this `palate.json` from that of a single model.
    """

    members: tuple[Member, ...]
    logit_scale: float = 1.0
    calibration: Calibration | None = None
    kind: Literal["ensemble"] = "ensemble"

    def __post_init__(self) -> None:
        check_fields(self, ENSEMBLE_FIELDS)


def is_ensemble(path: Path | str) -> bool:
    """Whether the folder names others instead of holding a model.

    Raises:
        ManifestError: Its `palate.json` cannot be read.
    """
    return (Path(path) / FILE_NAME).is_file() and read_document(Path(path)).get("kind") == "ensemble"


def read_ensemble(path: Path | str) -> Ensemble:
    """What the folder's `palate.json` says.

    Raises:
        ManifestError: It is wrong; the message names the field.
    """
    document = read_document(Path(path))
    with complaints_of(Path(path)):
        if isinstance(members := document.get("members"), list):
            document["members"] = [built(Member, member, ENSEMBLE_FIELDS, "members.") for member in members]
        return build(Ensemble, document, ENSEMBLE_FIELDS)


def write_ensemble(
    path: Path | str,
    members: Sequence[Path],
    *,
    logit_scale: float = 1.0,
    calibration: Calibration | None = None,
) -> Ensemble:
    """Makes the folder `path` an ensemble of the folders `members`, as these are now.

    Raises:
        FolderError: A member is no reward model, or they cannot be read as one.
    """
    folder = Path(path)
    if (folder / FILE_NAME).exists():
        raise FolderError(f"{folder} has a {FILE_NAME}; choose another folder")
    loaded = [(member, load_manifest(member).manifest) for member in members]
    if policies := [str(member) for member, manifest in loaded if manifest.kind != "reward"]:
        raise FolderError(f"{', '.join(policies)}: an ensemble is of reward models")
    digests = {str(member): digest_folder(member, manifest) for member, manifest in loaded}
    check_alike(digests)
    folder.mkdir(parents=True, exist_ok=True)
    named = tuple(Member(_from(folder, member), digests[str(member)].revision) for member in members)
    ensemble = Ensemble(named, logit_scale, calibration)
    write_document(folder, said_by(ensemble))
    return ensemble


def _from(folder: Path, member: Path) -> str:
    return Path(os.path.relpath(member.resolve(), folder.resolve())).as_posix()


def check_alike(members: Mapping[str, Digests]) -> None:
    """Whether one rendering of a text is right for all members.

    Raises:
        FolderError: Two differ in tokenizer or template; the message names both.
    """
    (first, of_first), *others = members.items()
    for name, digests in others:
        for what in ("tokenizer", "template"):
            if getattr(digests, what) != getattr(of_first, what):
                raise FolderError(
                    f"{first} and {name} differ in their {what} (for the template also: lengths, special tokens, how "
                    "the score is read); members of an ensemble read the same ids, so take models trained alike"
                )


def digest_ensemble(ensemble: Ensemble, members: Iterable[Digests]) -> Digests:
    """Names the whole: its revision covers the members' revisions, calibration and logit scale."""
    digests = list(members)
    calibration = asdict(ensemble.calibration) if ensemble.calibration else None
    revisions = [each.revision for each in digests]
    return Digests(
        weights=digest_of([each.weights for each in digests]),
        tokenizer=digests[0].tokenizer,
        template=digests[0].template,
        revision=digest_of(["ensemble", revisions, calibration, ensemble.logit_scale]),
    )
