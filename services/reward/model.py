"""A reward model as it is served: folder, names, renderer and engine, loaded and checked."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from palate.models.folder import FolderError, ModelFolder
from palate.models.foreign import Inferred
from palate.models.manifest import Digests, Manifest, digest_folder, load_manifest
from palate.models.rendering import Renderer
from services.reward.config import RewardConfig
from services.reward.engine import Engine
from services.reward.engines import open_engine
from services.reward.parity import check_parity

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RewardModel:
    """Everything about the one model that a server has.

    Attributes:
        name: As replies and options name it.
        pad_token_id: What transformers' head would take for padding; None where the folder does not say.
        inferred: What the folder leaves open.
    """

    name: str
    manifest: Manifest
    digests: Digests
    renderer: Renderer
    engine: Engine
    pad_token_id: int | None
    inferred: tuple[Inferred, ...]


def load_model(config: RewardConfig) -> RewardModel:
    """Loads what `config` names; blocks for as long as that takes.

    Raises:
        FolderError: The folder cannot be served.
        ParityError: The engine's scores depend on the batch.
    """
    loaded = load_manifest(config.model)
    manifest = loaded.manifest
    if manifest.kind != "reward":
        raise FolderError(f"{config.model} is a policy; serve it with `palate serve policy`")
    if manifest.max_tokens > config.max_queue_tokens:
        raise FolderError(
            f"an input of this model may have {manifest.max_tokens} tokens, more than --max-queue-tokens; raise that, "
            "or lower max_tokens in palate.json"
        )
    digests = digest_folder(config.model, manifest)
    renderer = Renderer.from_folder(config.model, manifest)
    engine = open_engine(config.engine, config.model, manifest, digests.weights, config.engine_options)
    parity = check_parity(engine, renderer, config.tolerance(engine.dtype))
    name = config.name or config.model.resolve().name
    logger.info("model %s, revision %s, engine %s, %s", name, digests.revision, engine.name, engine.dtype)
    logger.info("alone and batched: %.1e standard deviations apart", parity.deviation)
    for item in loaded.inferred:
        logger.warning("not said by the folder: %s; assumed: %s", item.missing, item.assumed)
    folder = ModelFolder(config.model)
    return RewardModel(name, manifest, digests, renderer, engine, folder.pad_token_id, loaded.inferred)
