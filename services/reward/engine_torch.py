"""Engine on PyTorch, CPU or GPU: any sequence-classification folder that transformers knows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from palate.models.classifier import MaskedClassifier, load_classifier
from palate.models.folder import FolderError, ModelFolder
from palate.models.manifest import Manifest
from palate.models.torch_device import has_bfloat16, torch_device
from services.reward.engine import DtypeName, EngineOptions, Row
from services.reward.launch_cost import tokens_in_a_start
from services.reward.layout import MOST_TOKENS, Layout
from services.reward.padding import pad
from services.reward.prefix_reuse import obstacle_to_reuse
from services.reward.reading import read_scores
from services.reward.recorded_passes import RecordedPasses, can_record, recorder
from services.reward.sharing import CPU_GROUP_COST, Group, choose_groups, chunks_of

logger = logging.getLogger(__name__)

_CPU_TOKENS = 1024
"""Beyond so many, a batch without shared prompts gets no faster per token on a CPU (docs/decisions.md)."""


class TorchEngine:
    """Runs the checkpoint as it is; a decoder computes what rows of a batch share at their begin once.

    PyTorch chooses its kernels by shape, so that a row's last bits depend on its batch. In strict mode every row is
    computed by itself, without padding (on a GPU, filled up to a recorded length); so it is in bfloat16 on the CPU,
    where the last bits are no longer small.
    """

    name = "torch"

    def __init__(self, path: Path, manifest: Manifest, options: EngineOptions) -> None:
        torch.set_num_threads(options.threads.alone)
        folder = ModelFolder(path)
        self._manifest = manifest
        self._device = torch_device(options.device)
        dtype = _dtype(options.dtype, self._device)
        self.dtype = str(dtype).removeprefix("torch.")
        self._model = load_classifier(path, manifest, dtype).to(self._device)
        self._has_segments = folder.has_segments
        self._pad_id = folder.pad_token_id or 0
        self._one_by_one = options.strict or (dtype == torch.bfloat16 and self._device.type == "cpu")
        self._max_tokens = options.max_batch_tokens
        self.reuses_prefixes = not self._one_by_one and _can_reuse(self._model)
        on_cpu = self._device.type == "cpu"
        self._forward: Callable[..., torch.Tensor] = self._model
        self._group_cost = CPU_GROUP_COST
        if not on_cpu:
            self._get_ready_on_gpu()
        self.layout = Layout(
            options.lanes if on_cpu else 1, _CPU_TOKENS if on_cpu and not self.reuses_prefixes else MOST_TOKENS
        )
        self._threads = options.threads

    def _get_ready_on_gpu(self) -> None:
        longest, record = self._manifest.max_tokens, recorder(self._device)
        start = tokens_in_a_start(self._model, self._device, longest, self._max_tokens)
        self._group_cost = max(CPU_GROUP_COST, 2 * start)  # two passes: of the prefix, and of what comes after it
        # What is measured differs a little from start to start, and strict bits must not.
        most = longest if self._one_by_one else min(start, MOST_TOKENS)
        if can_record(self._model, self._tensors([Row((self._pad_id,) * min(32, longest))]), record):
            self._forward = RecordedPasses(self._model, self._pad_id, longest, most, record)
        logger.info("a pass takes as long to start as %d tokens do to be computed", start)

    @torch.inference_mode()
    def score(self, rows: Sequence[Row], alone: bool = False) -> NDArray[np.float32]:
        """(B, M) one raw score per row and member."""
        logits = np.empty((len(rows), self._model.model.config.num_labels), np.float32)
        # Holds for the parallel regions of the calling thread.
        torch.set_num_threads(self._threads.alone if alone else self._threads.each)
        for group in self._groups(rows):
            for places, values in self._compute(group, rows):
                logits[list(places)] = values.float().cpu().numpy()
        return read_scores(logits, self._manifest)

    def _groups(self, rows: Sequence[Row]) -> list[Group]:
        if self._one_by_one:
            return [Group((place,), 0) for place in range(len(rows))]
        if self.reuses_prefixes:
            return choose_groups([row.token_ids for row in rows], self._group_cost)
        return [Group(tuple(range(len(rows))), 0)]

    def _compute(self, group: Group, rows: Sequence[Row]) -> Iterator[tuple[tuple[int, ...], torch.Tensor]]:
        """Places in the batch, and the (B, labels) logits of what stands there."""
        if not group.prefix:
            yield group.rows, self._forward(*self._tensors([rows[place] for place in group.rows]))
            return
        shared = Row(rows[group.rows[0]].token_ids[: group.prefix])
        prefix = self._model.read_prefix(self._tensors([shared])[0])
        for places in chunks_of(group, [len(row.token_ids) for row in rows], self._max_tokens):
            rests = [Row(rows[place].token_ids[group.prefix :]) for place in places]
            yield places, self._model.go_on(prefix, *self._tensors(rests))

    def _tensors(self, rows: Sequence[Row]) -> list[torch.Tensor]:
        """Ids, mask, and segments for models that have them, each (B, T)."""
        batch = pad(rows, self._pad_id)
        arrays = [batch.input_ids, batch.attention_mask, *([batch.token_type_ids] if self._has_segments else [])]
        return [torch.from_numpy(array).to(self._device) for array in arrays]


def _can_reuse(model: MaskedClassifier) -> bool:
    if not model.is_decoder:
        return False
    if obstacle := obstacle_to_reuse(model):
        logger.info("shared prompts are computed for every completion: %s", obstacle)
    return obstacle is None


def _dtype(wanted: DtypeName, device: torch.device) -> torch.dtype:
    if wanted == "int8":
        raise FolderError(
            "--dtype int8 is for ONNX Runtime; make such a folder with `palate export --precision int8`, or take "
            "bfloat16 or float32 with --engine torch"
        )
    if wanted != "bfloat16":
        return torch.float32
    if device.type == "cpu" and not has_bfloat16(device):
        raise FolderError(
            "--dtype bfloat16, but this processor has no bfloat16 products (AVX512-BF16 or AMX on x86, BF16 on ARM), "
            "so it would be slower than float32; use --dtype float32, or `palate export --precision int8`"
        )
    return torch.bfloat16
