"""Makes a served folder from a trained classifier: palate.json, model.onnx, tokenizer, checkpoint; proved first."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from palate.file_errors import unwritable
from palate.models.ensemble import is_ensemble, read_ensemble
from palate.models.folder import INDEX_NAME, FolderError, ModelFolder, file_sha256
from palate.models.foreign import Inferred
from palate.models.manifest import (
    Digests,
    LoadedManifest,
    Manifest,
    OnnxExport,
    Precision,
    digest_folder,
    load_manifest,
    write_manifest,
)
from palate.models.probe_texts import PROBES
from palate.models.quantize import quantize
from palate.models.rendering import Rendered, Renderer
from palate.models.tolerances import TOLERANCES, Tolerance, spread

if TYPE_CHECKING:
    from palate.models.classifier import MaskedClassifier

_COPIED = (
    INDEX_NAME,
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "LICENSE*",
    "README.md",
)

_OPSET = 17

_MAX_ONNX_BYTES = 2**31 - 2**24
"""protobuf's limit, less room for the graph; beyond it weights would lie in files that no digest covers."""


class ExportError(Exception):
    """The export failed; nothing was left behind. The message says what to do."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A finished export.

    Attributes:
        path: The served folder.
        manifest: Its palate.json.
        digests: Its names.
        inferred: What of the manifest was assumed.
        deviation: Largest difference of a probe's logits between torch and ONNX Runtime, in standard deviations.
    """

    path: Path
    manifest: Manifest
    digests: Digests
    inferred: tuple[Inferred, ...]
    deviation: float


def export(
    source: Path,
    target: Path,
    *,
    overrides: Mapping[str, Any] | None = None,
    precision: Precision = "float32",
    tolerance: float | None = None,
) -> Exported:
    """Writes `target` from the classifier in `source`, in one move at the end.

    Args:
        source: A Hugging Face sequence-classification folder, with or without palate.json.
        target: The folder to make; must not exist.
        overrides: Fields of the manifest that the caller knows better than the folder.
        precision: Of the products with weights in model.onnx.
        tolerance: How far torch and ONNX Runtime may be apart, in standard deviations of the probes' logits; default:
            that of `palate.models.tolerances`.

    Raises:
        FolderError: The source is no usable classifier.
        ExportError: The target exists or cannot be written, the source is an ensemble, or the two engines disagree.
    """
    if target.exists():
        raise ExportError(f"{target} exists; choose another --out, or remove it first")
    loaded = _reward_model(source, overrides)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as draft:
            allowed = TOLERANCES[precision].shift if tolerance is None else tolerance
            made = _fill(source, Path(draft) / "model", loaded.manifest, precision, allowed)
            (Path(draft) / "model").rename(target)
    except OSError as error:
        raise ExportError(unwritable(target, error)) from error
    manifest, digests, deviation = made
    return Exported(target, manifest, digests, loaded.inferred, deviation)


def _reward_model(source: Path, overrides: Mapping[str, Any] | None) -> LoadedManifest:
    """The manifest of what can be exported."""
    if is_ensemble(source):
        members = ", ".join(str((source / member.path).resolve()) for member in read_ensemble(source).members)
        raise ExportError(
            f"{source} is an ensemble: export each of its members ({members}), then `palate ensemble` makes one of the "
            "exported folders"
        )
    loaded = load_manifest(source, overrides)
    if loaded.manifest.kind != "reward":
        raise ExportError(f"{source} is a policy; export is for reward models (policies are served as they are)")
    return loaded


def _fill(
    source: Path, draft: Path, manifest: Manifest, precision: Precision, tolerance: float
) -> tuple[Manifest, Digests, float]:
    from palate.models.classifier import load_classifier

    draft.mkdir()
    others = {file for pattern in _COPIED for file in source.glob(pattern)}
    for file in (*ModelFolder(source).checkpoint, *sorted(others)):
        shutil.copyfile(file, draft / file.name)
    _check_size(draft)
    digests = digest_folder(draft, manifest)
    model = load_classifier(draft, manifest)
    rows = _probes(draft, manifest)
    _write_onnx(model, draft, rows)
    if precision == "int8" and quantize(draft / "model.onnx", [_inputs([row], draft) for row in rows]) == 0:
        raise ExportError("the model has no product with a constant matrix to make int8; export it as float32")
    deviation = _check(model, draft, rows, replace(TOLERANCES[precision], shift=tolerance))
    onnx = OnnxExport(file_sha256(draft / "model.onnx"), digests.weights, precision)
    manifest = replace(manifest, onnx=onnx)
    write_manifest(draft, manifest)
    _flush(draft)
    return manifest, digests, deviation


def _check_size(folder: Path) -> None:
    parameters = sum(math.prod(tensor.shape) for tensor in ModelFolder(folder).tensors.values())
    if parameters * 4 > _MAX_ONNX_BYTES:
        raise ExportError(
            f"{parameters:,} parameters in float32 exceed the 2 GiB that one ONNX file holds; serve the folder as it "
            "is, with --engine torch"
        )


def _probes(folder: Path, manifest: Manifest) -> list[Rendered]:
    rendered = Renderer.from_folder(folder, manifest).render_pairs(PROBES, "left")
    rows = [row for row in rendered if isinstance(row, Rendered)]
    if len(rows) < 2:
        raise ExportError(f"the model's template takes none of the built-in texts: {rendered[0]}")
    return rows


def _inputs(rows: list[Rendered], folder: Path) -> dict[str, np.ndarray]:
    """Rows as one right-padded batch of everything the graph takes."""
    source = ModelFolder(folder)
    shape = (len(rows), max(len(row.token_ids) for row in rows))
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if source.has_segments else [])]
    batch = {name: np.zeros(shape, np.int64) for name in names}
    batch["input_ids"][:] = source.pad_token_id or 0
    for index, row in enumerate(rows):
        batch["input_ids"][index, : len(row.token_ids)] = row.token_ids
        batch["attention_mask"][index, : len(row.token_ids)] = 1
        if "token_type_ids" in batch:
            batch["token_type_ids"][index, : len(row.segment_ids)] = row.segment_ids
    return batch


def _write_onnx(model: MaskedClassifier, folder: Path, rows: list[Rendered]) -> None:
    import torch

    batch = {name: torch.from_numpy(array) for name, array in _inputs(rows[:3], folder).items()}
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # the tracer's remarks about shapes; parity is checked right after
        try:
            torch.onnx.export(
                model,
                tuple(batch.values()),
                str(folder / "model.onnx"),
                input_names=list(batch),
                output_names=["logits"],
                dynamic_axes={**{name: {0: "batch", 1: "length"} for name in batch}, "logits": {0: "batch"}},
                opset_version=_OPSET,
                dynamo=False,
            )
        except RuntimeError as error:
            raise ExportError(f"PyTorch cannot export this model: {error}; serve it with --engine torch") from error


def _check(model: MaskedClassifier, folder: Path, rows: list[Rendered], allowed: Tolerance) -> float:
    """Compares torch and ONNX Runtime, alone and batched; returns the largest difference in standard deviations."""
    import torch

    from palate.models.onnx_runtime import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    alone = [_inputs([row], folder) for row in rows]
    with torch.inference_mode():
        expected = np.concatenate([model(*map(torch.from_numpy, one.values())).numpy() for one in alone])
    singly = np.concatenate([session.run(["logits"], one)[0] for one in alone])
    batched = session.run(["logits"], _inputs(rows, folder))[0]
    scale = min(map(spread, expected.T))
    deviation = float(max(np.abs(singly - expected).max(), np.abs(batched - expected).max())) / scale
    if not deviation <= allowed.shift:
        raise ExportError(
            f"torch and ONNX Runtime differ by {deviation:.1e} standard deviations on the built-in texts, more than "
            f"the tolerance of {allowed.shift:.1e}; nothing was written. Export it as float32, or serve the "
            "folder with --engine torch"
        )
    if not (moved := float(np.abs(singly - batched).max()) / scale) <= allowed.batch:
        raise ExportError(
            f"ONNX Runtime scores a text {moved:.1e} standard deviations apart alone and beside others on this "
            "processor; nothing was written. Serve the folder with --engine torch"
        )
    return deviation


def _flush(folder: Path) -> None:
    """Onto the disk, so that a full or failing one is noticed before the folder gets its name."""
    for file in folder.iterdir():
        with file.open("rb") as stream:
            os.fsync(stream.fileno())


__all__ = ["ExportError", "Exported", "FolderError", "export"]
