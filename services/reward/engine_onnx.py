"""Engine on ONNX Runtime, float32, CPU: an exported folder, without torch in the process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from palate.models.folder import FolderError, ModelFolder, file_sha256
from palate.models.manifest import Manifest
from services.reward.engine import Row
from services.reward.padding import pad
from services.reward.reading import read_scores

FILE_NAME = "model.onnx"


class OnnxEngine:
    """Runs model.onnx, which must be the one that `palate export` made from this folder's weights."""

    name = "onnx"
    dtype = "float32"

    def __init__(self, path: Path, manifest: Manifest, weights_digest: str, *, threads: int = 0) -> None:
        file = path / FILE_NAME
        _check_origin(file, manifest, weights_digest)
        self._manifest = manifest
        self._pad_id = ModelFolder(path).pad_token_id or 0
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        try:
            self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the library's own exceptions share no base class
            raise FolderError(f"ONNX Runtime cannot load {file}: {error}; {_REMEDY}") from error
        self._inputs = [tensor.name for tensor in self._session.get_inputs()]

    def score(self, rows: Sequence[Row]) -> NDArray[np.float32]:
        """(B, M) one raw score per row and member."""
        batch = pad(rows, self._pad_id)
        (logits,) = self._session.run(["logits"], {name: getattr(batch, name) for name in self._inputs})
        return read_scores(logits, self._manifest)


_REMEDY = "make the folder anew with `palate export --model FOLDER --out NEW_FOLDER`, or serve it with --engine torch"


def _check_origin(file: Path, manifest: Manifest, weights_digest: str) -> None:
    if not file.is_file():
        raise FolderError(f"{file.parent} has no {FILE_NAME}; {_REMEDY}")
    if manifest.onnx is None:
        raise FolderError(f"palate.json of {file.parent} does not say what {FILE_NAME} was made from; {_REMEDY}")
    if manifest.onnx.weights_digest != weights_digest or manifest.onnx.sha256 != file_sha256(file):
        raise FolderError(f"{file} was not made from the weights beside it; {_REMEDY}")
