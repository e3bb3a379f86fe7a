"""What every peer runs: the same model.onnx and tokenizer; imports nothing of ours, for it runs where Palate is not."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

MODEL = "PEER_MODEL"
THREADS = "PEER_THREADS"
BATCH = "PEER_BATCH"
PORT = "PEER_PORT"
"""Environment variables that say what to serve, with how many threads, rows a batch, and where."""

PATIENCE_SECONDS = 120
"""How long a request may wait in a peer's queue: no figure shall come from requests that were given up."""


def batch_size() -> int:
    """Rows of a batch."""
    return int(os.environ[BATCH])


def port() -> int:
    """Where to listen on 127.0.0.1."""
    return int(os.environ[PORT])


class Scorer:
    """Scores pairs as one batch."""

    def __init__(self) -> None:
        folder = Path(os.environ[MODEL])
        manifest = json.loads((folder / "palate.json").read_text())
        self._joins = manifest["template_kind"] == "join"
        self._score_index = manifest.get("score_index") or 0
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.enable_padding(pad_id=json.loads((folder / "config.json").read_text()).get("pad_token_id") or 0)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ[THREADS])
        options.inter_op_num_threads = 1
        file = str(folder / "model.onnx")
        self._session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        self._inputs = [tensor.name for tensor in self._session.get_inputs()]

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """One raw score per (prompt, completion)."""
        rows = self._tokenizer.encode_batch([a + b if self._joins or not a else (a, b) for a, b in pairs])
        columns = {
            "input_ids": [row.ids for row in rows],
            "attention_mask": [row.attention_mask for row in rows],
            "token_type_ids": [row.type_ids for row in rows],
        }
        (logits,) = self._session.run(["logits"], {name: np.array(columns[name], np.int64) for name in self._inputs})
        return [float(score) for score in logits[:, self._score_index]]
