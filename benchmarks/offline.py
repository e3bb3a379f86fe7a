"""The engine alone: model.onnx on rows that are token ids already, sorted by length, as no service can have them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from palate.models.folder import ModelFolder
from palate.models.manifest import load_manifest
from palate.models.onnx_runtime import onnxruntime
from palate.models.rendering import Rendered

CORES = os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class Layout:
    """How the cores are shared out: so many sessions side by side, each with so many threads."""

    sessions: int
    threads: int

    def __str__(self) -> str:
        return f"{self.sessions} x {self.threads} threads"


WHOLE, SPLIT = Layout(1, CORES), Layout(CORES, 1)
LAYOUTS = (WHOLE,) if CORES == 1 else (WHOLE, SPLIT)


class Offline:
    """Scores with one layout; its threads end with it."""

    def __init__(self, folder: Path, layout: Layout = WHOLE) -> None:
        self._pad_id = ModelFolder(folder).pad_token_id or 0
        self._score_index = load_manifest(folder).manifest.score_index or 0
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = layout.threads
        options.inter_op_num_threads = 1
        file = str(folder / "model.onnx")
        self._sessions = [
            onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
            for _ in range(layout.sessions)
        ]
        self._inputs = [tensor.name for tensor in self._sessions[0].get_inputs()]

    def score(self, rows: Sequence[Rendered], batch: int) -> list[float]:
        """One raw score per row, from batches of `batch` rows of about the same length."""
        order = sorted(range(len(rows)), key=lambda place: -len(rows[place].token_ids))
        groups = iter([order[start : start + batch] for start in range(0, len(rows), batch)])
        scores = np.empty(len(rows), np.float32)

        def work(session: onnxruntime.InferenceSession) -> None:
            for places in groups:
                (logits,) = session.run(["logits"], self._feeds([rows[place] for place in places]))
                scores[places] = logits[:, self._score_index]

        if len(self._sessions) == 1:
            work(self._sessions[0])
        else:
            with ThreadPoolExecutor(len(self._sessions)) as pool:
                list(pool.map(work, self._sessions))
        return [float(score) for score in scores]

    def _feeds(self, rows: Sequence[Rendered]) -> dict[str, NDArray[np.int64]]:
        shape = (len(rows), max(len(row.token_ids) for row in rows))
        feeds = {name: np.zeros(shape, np.int64) for name in self._inputs}
        feeds["input_ids"][:] = self._pad_id
        for index, row in enumerate(rows):
            length = len(row.token_ids)
            feeds["input_ids"][index, :length] = row.token_ids
            feeds["attention_mask"][index, :length] = 1
            if "token_type_ids" in feeds:
                feeds["token_type_ids"][index, : len(row.segment_ids)] = row.segment_ids
        return feeds
