"""Chooses an engine for a folder; each is imported only where it is chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from palate.models.folder import FolderError
from palate.models.manifest import Manifest
from services.reward.engine import Engine
from services.reward.reading import member_count

EngineName = Literal["auto", "onnx", "torch", "fake"]


def open_engine(
    name: EngineName, path: Path, manifest: Manifest, weights_digest: str, *, device: str, threads: int
) -> Engine:
    """Loads the model.

    Args:
        name: Which engine; "auto" takes model.onnx where the folder has one, else torch.
        path: The model folder.
        manifest: What the folder means.
        weights_digest: Digest of the folder's checkpoint, which model.onnx must come from.
        device: For torch: "auto", "cpu", "cuda", "cuda:1" etc.
        threads: CPU threads of a forward pass; 0 = the engine's own choice.

    Raises:
        FolderError: The folder does not suit the engine, or the engine is not installed.
    """
    if name == "fake":
        from services.reward.engine_fake import FakeEngine

        return FakeEngine(member_count(manifest))
    try:
        if name == "onnx" or (name == "auto" and (path / "model.onnx").is_file()):
            from services.reward.engine_onnx import OnnxEngine

            return OnnxEngine(path, manifest, weights_digest, threads=threads)
        from services.reward.engine_torch import TorchEngine

        return TorchEngine(path, manifest, device=device, threads=threads)
    except ImportError as error:
        raise FolderError(
            f"this engine needs {error.name}, which is not installed: pip install 'palate[cpu]' for onnx (after "
            "`palate export` elsewhere), 'palate[train]' for torch"
        ) from error
