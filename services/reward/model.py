"""A reward model as it is served: folder, names, renderer and engine, loaded and checked."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from palate.models.ensemble import check_alike, digest_ensemble, is_ensemble, read_ensemble
from palate.models.folder import FolderError, ModelFolder
from palate.models.foreign import Inferred
from palate.models.manifest import Digests, Manifest, digest_folder, load_manifest
from palate.models.place import model_folder, model_name
from palate.models.rendering import Renderer
from palate.models.template_truth import template_remarks
from services.reward.config import RewardConfig
from services.reward.engine import Engine
from services.reward.engine_paced import PacedEngine
from services.reward.engines import open_engine
from services.reward.ensemble import EnsembleEngine
from services.reward.parity import check_parity, prove_strict

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Member:
    """One of the scores behind an ensemble's one.

    Attributes:
        name: Within the ensemble.
        revision: Of the folder that it comes from.
        label: Which output of that folder's head; None where it has one.
    """

    name: str
    revision: str
    label: int | None


@dataclass(frozen=True, slots=True)
class RewardModel:
    """Everything that a server has of one model.

    Attributes:
        name: As replies and options name it.
        pad_token_id: What transformers' head would take for padding; None where the folder does not say.
        inferred: What the folder leaves open.
        members: Of an ensemble, in the order of the engine's columns; empty for others.
        is_strict: Whether a text's score was proved to be the same bits in every batch.
        parity_deviation: How far scores alone and in a batch were apart when that was checked, in standard deviations.
    """

    name: str
    manifest: Manifest
    digests: Digests
    renderer: Renderer
    engine: Engine
    pad_token_id: int | None
    inferred: tuple[Inferred, ...]
    members: tuple[Member, ...] = ()
    is_strict: bool = False
    parity_deviation: float = 0.0


@dataclass(frozen=True, slots=True)
class _Read:
    """A folder that is read and named, its engine not opened yet."""

    folder: ModelFolder
    manifest: Manifest
    digests: Digests
    renderer: Renderer
    inferred: tuple[Inferred, ...]


def load_model(config: RewardConfig) -> RewardModel:
    """`load_folder` for the model that is the server's default."""
    return load_folder(_local(config.model, config), config.name or model_name(config.model), config)


def load_models(config: RewardConfig) -> list[RewardModel]:
    """Every model that `config` names, the default first.

    Raises:
        FolderError: A folder cannot be served, two models have one name, or there are too many.
        HubAway: A model is on the hub, which cannot be reached now.
        ParityError: An engine's scores depend on the batch.
    """
    default = config.name or model_name(config.model)
    if default in config.models:
        raise FolderError(
            f"--model and --models both name a model {default!r}; give --name, or another one to --models"
        )
    if len(config.models) >= config.max_models:
        raise FolderError(f"{len(config.models) + 1} models are more than --max-models {config.max_models}; raise it")
    more = (load_folder(_local(place, config), name, config) for name, place in config.models.items())
    return [load_model(config), *more]


def _local(place: Path, config: RewardConfig) -> Path:
    return model_folder(place, config.max_download_bytes)


def load_folder(path: Path, name: str, config: RewardConfig) -> RewardModel:
    """Loads one model, or the ensemble that a folder names; blocks for as long as that takes.

    Args:
        path: The folder.
        name: As it is to be served; empty = the folder's.
        config: Engine and limits.

    Raises:
        FolderError: The folder cannot be served.
        ParityError: The engine's scores depend on the batch.
    """
    name = name or path.resolve().name
    model = _ensemble(path, name, config) if is_ensemble(path) else _single(path, name, config)
    model = _paced(_checked(model, config), config.min_batch_seconds)
    engine = model.engine
    logger.info("model %s, revision %s, engine %s, %s", name, model.digests.revision, engine.name, engine.dtype)
    if model.members:
        logger.info("an ensemble of %d: %s", len(model.members), ", ".join(member.name for member in model.members))
    for item in model.inferred:
        logger.warning("not said by the folder: %s; assumed: %s", item.missing, item.assumed)
    return model


def _paced(model: RewardModel, batch_seconds: float) -> RewardModel:
    """The model with forward passes that take so long at least, where that is asked for."""
    return replace(model, engine=PacedEngine(model.engine, batch_seconds)) if batch_seconds else model


def folders_of(path: Path) -> Iterator[Path]:
    """The folder, and after it those that an ensemble names.

    Raises:
        FolderError: The ensemble cannot be read.
    """
    yield path
    if is_ensemble(path):
        yield from (path / member.path for member in read_ensemble(path).members)


def _checked(model: RewardModel, config: RewardConfig) -> RewardModel:
    """The model behind the parity gate: within tolerance, or in strict mode with an engine that keeps its bits."""
    if config.strict:
        limits = config.batch_limits(model.engine.layout)
        return replace(model, engine=prove_strict(model.engine, model.renderer, limits), is_strict=True)
    parity = check_parity(model.engine, model.renderer, config.tolerance(model.engine.dtype))
    logger.info("alone and batched: %.1e standard deviations apart", parity.deviation)
    return replace(model, parity_deviation=parity.deviation)


def _single(path: Path, name: str, config: RewardConfig) -> RewardModel:
    read = _read(path, config)
    members = _heads(read, "") if read.manifest.member_labels else ()
    return RewardModel(
        name,
        read.manifest,
        read.digests,
        read.renderer,
        _open(read, config),
        read.folder.pad_token_id,
        read.inferred,
        members,
    )


def _ensemble(path: Path, name: str, config: RewardConfig) -> RewardModel:
    ensemble = read_ensemble(path)
    reads = {member.path: _read(path / member.path, config) for member in ensemble.members}
    for member in ensemble.members:
        _check_pin(member.path, reads[member.path].digests.revision, member.revision)
    check_alike({member: read.digests for member, read in reads.items()})
    _check_segments(reads)
    first = next(iter(reads.values()))
    return RewardModel(
        name,
        replace(first.manifest, logit_scale=ensemble.logit_scale, calibration=ensemble.calibration, onnx=None),
        digest_ensemble(ensemble, (read.digests for read in reads.values())),
        first.renderer,
        EnsembleEngine([_open(read, config) for read in reads.values()]),
        first.folder.pad_token_id,
        tuple(dict.fromkeys(item for read in reads.values() for item in read.inferred)),
        tuple(head for member, read in reads.items() for head in _heads(read, member)),
    )


def _read(path: Path, config: RewardConfig) -> _Read:
    loaded = load_manifest(path)
    manifest = loaded.manifest
    if manifest.kind != "reward":
        raise FolderError(f"{path} is a policy; serve it with `palate serve policy`")
    if manifest.max_tokens > config.max_queue_tokens:
        raise FolderError(
            f"an input of this model may have {manifest.max_tokens} tokens, more than --max-queue-tokens; raise that, "
            "or lower max_tokens in palate.json"
        )
    digests, renderer = digest_folder(path, manifest), Renderer.from_folder(path, manifest)
    inferred = (*loaded.inferred, *template_remarks(renderer))
    return _Read(ModelFolder(path), manifest, digests, renderer, inferred)


def _open(read: _Read, config: RewardConfig) -> Engine:
    return open_engine(config.engine, read.folder.path, read.manifest, read.digests.weights, config.engine_options)


def _heads(read: _Read, name: str) -> tuple[Member, ...]:
    """The scores of one folder, as members of an ensemble; `name` is the folder's there."""
    revision, labels = read.digests.revision, read.manifest.member_labels
    if not labels:
        return (Member(name, revision, None),)
    return tuple(Member(f"{name} label {label}".strip(), revision, label) for label in labels)


def _check_pin(member: str, found: str, pinned: str) -> None:
    if found != pinned:
        raise FolderError(
            f"the member {member} has revision {found}, the ensemble's palate.json names {pinned}: the folder was "
            "changed; put the former one back, or make the ensemble anew with `palate ensemble`"
        )


def _check_segments(reads: dict[str, _Read]) -> None:
    told = {member for member, read in reads.items() if read.folder.has_segments}
    if told and told != reads.keys():
        raise FolderError(
            f"{', '.join(sorted(told))} is told which text a token belongs to (token_type_ids), the other members are "
            "not; members of an ensemble read the same input"
        )
