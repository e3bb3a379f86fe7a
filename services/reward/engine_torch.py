"""Engine on PyTorch, float32, CPU or GPU: any sequence-classification folder that transformers knows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from palate.models.classifier import load_classifier
from palate.models.folder import FolderError, ModelFolder
from palate.models.manifest import Manifest
from services.reward.engine import Row
from services.reward.padding import pad
from services.reward.reading import read_scores


class TorchEngine:
    """Runs the checkpoint as it is."""

    name = "torch"
    dtype = "float32"

    def __init__(self, path: Path, manifest: Manifest, *, device: str = "auto", threads: int = 0) -> None:
        if threads:
            torch.set_num_threads(threads)
        folder = ModelFolder(path)
        self._manifest = manifest
        self._device = _device(device)
        self._model = load_classifier(path, manifest).to(self._device)
        self._has_segments = folder.has_segments
        self._pad_id = folder.pad_token_id or 0

    @torch.inference_mode()
    def score(self, rows: Sequence[Row]) -> NDArray[np.float32]:
        """(B, M) one raw score per row and member."""
        batch = pad(rows, self._pad_id)
        arrays = [batch.input_ids, batch.attention_mask, *([batch.token_type_ids] if self._has_segments else [])]
        logits = self._model(*(torch.from_numpy(array).to(self._device) for array in arrays))
        return read_scores(logits.float().cpu().numpy(), self._manifest)


def _device(wanted: str) -> torch.device:
    name = ("cuda" if torch.cuda.is_available() else "cpu") if wanted == "auto" else wanted
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise FolderError(f"--device {wanted}, but PyTorch sees no GPU here; use --device cpu")
    return torch.device(name)
