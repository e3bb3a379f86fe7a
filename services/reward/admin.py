"""AdminService: loads models beside those that are served, and exchanges, removes and chooses them."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from palate.models.folder import FolderError
from palate.v1 import admin_service_pb2 as admin
from palate.v1.admin_service_pb2_grpc import AdminServiceServicer
from services.reward.config import MODEL_NAME, RewardConfig
from services.reward.metrics import LoadOutcome, RewardMetrics
from services.reward.model import RewardModel, folders_of, load_folder
from services.reward.parity import ParityError
from services.reward.registry import Registry
from services.reward.replies import provenance
from services.reward.service import Context
from services.runtime.errors import InvalidRequest, NotPossible, PermissionDenied, WrongPin

logger = logging.getLogger(__name__)


class AdminServicer(AdminServiceServicer):
    """Changes what `registry` holds. One model is loaded at a time, in a thread of its own; others wait."""

    def __init__(self, registry: Registry, config: RewardConfig, metrics: RewardMetrics) -> None:
        self._registry = registry
        self._metrics = metrics
        self._config = config
        self._loading = ThreadPoolExecutor(1, thread_name_prefix="loading")

    async def LoadModel(self, request: admin.LoadModelRequest, context: Context) -> admin.LoadModelResponse:  # noqa: N802
        """Loads a folder and gives it its name. A caller who is gone before it is loaded has changed nothing."""
        root = self._root()
        if not MODEL_NAME.fullmatch(request.name):
            raise InvalidRequest(
                'name: 1 to 100 letters, digits, ".", "_", "-" or "/", beginning with one of the first two'
            )
        self._registry.check_room(request.name)
        model = await asyncio.get_running_loop().run_in_executor(self._loading, self._load, request, root)
        self._metrics.load_ended(LoadOutcome.LOADED)
        before = self._registry.put(model)  # no await between this and the reply: the exchange is one step
        if request.set_default:
            self._registry.set_default(model.name)
        previous = "" if before is None else before.digests.revision
        logger.info("%s is revision %s now; before: %s", model.name, model.digests.revision, previous or "nothing")
        return admin.LoadModelResponse(provenance=provenance(model), previous_revision=previous)

    async def UnloadModel(self, request: admin.UnloadModelRequest, context: Context) -> admin.UnloadModelResponse:  # noqa: N802
        """Takes a model away."""
        self._root()
        removed = self._registry.remove(request.name)
        logger.info("%s is unloaded", removed.name)
        return admin.UnloadModelResponse(revision=removed.digests.revision)

    async def SetDefaultModel(  # noqa: N802
        self, request: admin.SetDefaultModelRequest, context: Context
    ) -> admin.SetDefaultModelResponse:
        """Chooses the default model."""
        self._root()
        previous = self._registry.set_default(request.name)
        logger.info("%s is the default now; before: %s", request.name, previous)
        return admin.SetDefaultModelResponse(previous=previous)

    def close(self) -> None:
        """Loads nothing more; what is just being read is for nobody."""
        self._loading.shutdown(wait=False, cancel_futures=True)

    def _root(self) -> Path:
        if self._config.model_root is None:
            raise PermissionDenied(
                "this server is not administered over the network; start it with --model-root FOLDER"
            )
        return self._config.model_root

    def _load(self, request: admin.LoadModelRequest, root: Path) -> RewardModel:
        """Runs in the loading thread."""
        try:
            path = inside(root, request.path)
            model = load_folder(path, request.name, self._config)
        except (FolderError, ParityError, OSError, MemoryError, RuntimeError) as error:
            expected = isinstance(error, FolderError | ParityError)  # a wrong path is no fault of the server's
            logger.warning("%s could not be loaded", request.name, exc_info=None if expected else error)
            self._metrics.load_ended(LoadOutcome.PARITY if isinstance(error, ParityError) else LoadOutcome.UNUSABLE)
            raise NotPossible(f"{request.name} was not loaded, nothing was changed: {error}") from error
        if request.revision and request.revision != model.digests.revision:
            self._metrics.load_ended(LoadOutcome.OTHER_REVISION)
            found, wanted = model.digests.revision, request.revision[:64]
            raise WrongPin(f"the folder has revision {found}, not {wanted!r}; nothing was changed")
        return model


def inside(root: Path, path: str) -> Path:
    """`path`, from `root` on, with all links followed; neither it nor a file that would be read lies outside of `root`.

    Raises:
        PermissionDenied: Something lies outside; whether it exists there is not told.
        FolderError: It is an ensemble that cannot be read.
        OSError: It cannot be looked at, such as one whose name is too long.
    """
    if not path or "\0" in path:
        raise InvalidRequest("path: a folder, absolute or from the server's model root on")
    root = root.resolve()
    folder = _resolved(root, root / path, path)
    for part in folders_of(folder):
        for file in (_resolved(root, part, part.name), *part.glob("*")):
            _resolved(root, file, file.name)
    return folder


def _resolved(root: Path, path: Path, named: str) -> Path:
    resolved = path.resolve()
    if not resolved.is_relative_to(root):
        raise PermissionDenied(f"{named[:100]!r} lies outside of the server's model root")
    return resolved
