"""Chooses an engine for a folder; each is imported only where it is chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from palate.models.folder import FolderError
from palate.models.manifest import Manifest
from services.reward.engine import Engine, EngineOptions
from services.reward.reading import member_count

EngineName = Literal["auto", "onnx", "torch", "fake"]


def open_engine(
    name: EngineName, path: Path, manifest: Manifest, weights_digest: str, options: EngineOptions
) -> Engine:
    """Loads the model.

    Args:
        name: Which engine; "auto" takes model.onnx where the folder has one, else torch; bfloat16 is torch's alone.
        path: The model folder.
        manifest: What the folder means.
        weights_digest: Digest of the folder's checkpoint, which model.onnx must come from.
        options: How it is to run.

    Raises:
        FolderError: The folder or the options do not suit the engine, or the engine is not installed.
    """
    if name == "fake":
        from services.reward.engine_fake import FakeEngine

        return FakeEngine(options, member_count(manifest))
    has_onnx = (path / "model.onnx").is_file() and options.dtype != "bfloat16"
    try:
        if name == "onnx" or (name == "auto" and has_onnx):
            from services.reward.engine_onnx import OnnxEngine

            return OnnxEngine(path, manifest, weights_digest, options)
        from services.reward.engine_torch import TorchEngine

        return TorchEngine(path, manifest, options)
    except ImportError as error:
        raise FolderError(
            f"this engine needs {error.name}, which is not installed: pip install 'palate[cpu]' for onnx (after "
            "`palate export` elsewhere), 'palate[train]' for torch"
        ) from error
