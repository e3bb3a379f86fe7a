"""Engine on ONNX Runtime, CPU or GPU: an exported folder, without torch in the process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate.models.folder import FolderError, ModelFolder, file_sha256
from palate.models.manifest import Manifest, OnnxExport
from palate.models.onnx_device import onnx_gpu
from palate.models.onnx_runtime import onnxruntime
from services.reward.engine import DtypeName, EngineOptions, Row
from services.reward.hardware import adds_bytes_exactly
from services.reward.layout import ONE_LANE, Layout
from services.reward.padding import pad
from services.reward.reading import read_scores

FILE_NAME = "model.onnx"

_CPU_TOKENS = 384
"""Beyond so many, a batch's activations leave a core's cache, and it gets slower per token (docs/decisions.md)."""

_CPU_SLACK, _CPU_OVERHEAD = 0.1, 4
"""A pass of its own costs little here, so little padding is worth taking."""

_COPIED_BYTES = 512 * 1024 * 1024
"""Up to this size a second session is opened for passes that run alone; it holds the weights once more."""


class OnnxEngine:
    """Runs model.onnx, which must be the one that `palate export` made from this folder's weights.

    On the CPU its kernels give a row the same bits in every batch, which the check at start proves for the machine at
    hand. No such thing is known of GPUs: there, strict mode computes every row by itself, without padding.
    """

    name = "onnx"

    def __init__(self, path: Path, manifest: Manifest, weights_digest: str, options: EngineOptions) -> None:
        file = path / FILE_NAME
        made = _origin(file, manifest, weights_digest)
        _check_dtype(options.dtype, made.precision)
        self.dtype = made.precision
        self._manifest = manifest
        self._pad_id = ModelFolder(path).pad_token_id or 0
        gpu = onnx_gpu(options.device, made.precision)
        self._session = _open(file, options.threads.each, gpu)
        self._wide = self._session
        if gpu is None and options.threads.alone > options.threads.each and file.stat().st_size <= _COPIED_BYTES:
            self._wide = _open(file, options.threads.alone, None, spin=True)
        self._one_by_one = options.strict and gpu is not None
        self._inputs = [tensor.name for tensor in self._session.get_inputs()]
        self.layout = Layout(options.lanes, _CPU_TOKENS, _CPU_SLACK, _CPU_OVERHEAD) if gpu is None else ONE_LANE

    def score(self, rows: Sequence[Row], alone: bool = False) -> NDArray[np.float32]:
        """(B, M) one raw score per row and member."""
        batches = [[row] for row in rows] if self._one_by_one else [rows]
        session = self._wide if alone else self._session
        return read_scores(np.concatenate([self._logits(session, batch) for batch in batches]), self._manifest)

    def _logits(self, session: Any, rows: Sequence[Row]) -> NDArray[np.float32]:
        batch = pad(rows, self._pad_id)
        (logits,) = session.run(["logits"], {name: getattr(batch, name) for name in self._inputs})
        return np.asarray(logits, np.float32)


_REMEDY = "make the folder anew with `palate export --model FOLDER --out NEW_FOLDER`, or serve it with --engine torch"


def _origin(file: Path, manifest: Manifest, weights_digest: str) -> OnnxExport:
    if not file.is_file():
        raise FolderError(f"{file.parent} has no {FILE_NAME}; {_REMEDY}")
    if manifest.onnx is None:
        raise FolderError(f"palate.json of {file.parent} does not say what {FILE_NAME} was made from; {_REMEDY}")
    if manifest.onnx.weights_digest != weights_digest or manifest.onnx.sha256 != file_sha256(file):
        raise FolderError(f"{file} was not made from the weights beside it; {_REMEDY}")
    return manifest.onnx


def _check_dtype(wanted: DtypeName, made: str) -> None:
    if wanted == "bfloat16":
        raise FolderError("--dtype bfloat16 is for PyTorch; add --engine torch")
    if wanted not in ("auto", made):
        raise FolderError(
            f"--dtype {wanted}, but {FILE_NAME} was exported as {made}; leave --dtype out, or make another folder with "
            f"`palate export --precision {wanted}`"
        )
    if made == "int8" and not adds_bytes_exactly():
        raise FolderError(
            f"{FILE_NAME} was exported as int8, but this processor shows no VNNI instructions: "
            "sums of products would be cut off at 16 bits; export with --precision float32 for it"
        )


def _open(file: Path, threads: int, gpu: int | None, *, spin: bool = False) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that wait sleep: spinning takes the processors from the front and from other servers. A pass that runs
    # alone takes nothing from anybody, as long as its threads stop with it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spin else "0")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    providers: list[Any] = ["CPUExecutionProvider"]
    if gpu is not None:  # TF32 would round float32 products to 10 bits
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": gpu, "use_tf32": "0"}))
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=providers)
    except Exception as error:  # the library's own exceptions share no base class
        raise FolderError(f"ONNX Runtime cannot load {file}: {error}; {_REMEDY}") from error
    if gpu is not None and "CUDAExecutionProvider" not in session.get_providers():
        raise FolderError("ONNX Runtime cannot use the GPU (its log says why: CUDA or cuDNN); use --device cpu")
    return session
