"""Scores as transformers gives them, one text at a time; what our engines are held to."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from palate.models.manifest import digest_folder, load_manifest
from palate.models.rendering import Renderer
from services.reward.engine import Engine, EngineOptions, Row
from services.reward.engines import EngineName, open_engine


def real_texts(count: int) -> list[tuple[str, str]]:
    """(prompt, completion) of the preference data under PALATE_DATA: short, long, with every kind of character."""
    found: list[tuple[str, str]] = []
    for name in ("hh_harmless_test", "pandalm", "llmbar", "finegrained_qa_dev"):
        found += list(_rows(Path(os.environ["PALATE_DATA"]) / "pairs" / f"{name}.jsonl.gz"))[: count // 4]
    return found


def _rows(file: Path) -> Iterator[tuple[str, str]]:
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            if row["prompt"].strip() and row["a"].strip():
                yield row["prompt"], row["a"]


def open_folder(folder: Path, engine: EngineName, **options: Any) -> tuple[Engine, Renderer]:
    manifest = load_manifest(folder).manifest
    weights = digest_folder(folder, manifest).weights
    opened = open_engine(engine, folder, manifest, weights, EngineOptions(**{"device": "cpu", **options}))
    return opened, Renderer.from_folder(folder, manifest)


def rows_of(renderer: Renderer, pairs: Sequence[tuple[str, str]]) -> list[Row]:
    """What our engines read; too long texts lose their oldest tokens."""
    return [Row(item.token_ids, item.segment_ids) for item in renderer.render_pairs(pairs, "left")]


@torch.inference_mode()
def direct_scores(folder: Path, renderer: Renderer, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
    """AutoTokenizer and AutoModelForSequenceClassification, one text at a time.

    A text longer than the model takes is given as our renderer cut it, since transformers' cut is another one.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    scores = []
    for prompt, completion in pairs:
        encoding = _encode(tokenizer, renderer, prompt, completion)
        if encoding["input_ids"].shape[1] > renderer.manifest.max_tokens:
            (row,) = rows_of(renderer, [(prompt, completion)])
            encoding = {"input_ids": torch.tensor([row.token_ids])}
            if row.segment_ids:
                encoding["token_type_ids"] = torch.tensor([row.segment_ids])
        scores.append(model(**encoding).logits[0, 0].item())
    return np.array(scores)


def _encode(tokenizer, renderer: Renderer, prompt: str, completion: str):
    if renderer.manifest.template_kind == "pair":
        return tokenizer(prompt, completion, return_tensors="pt", truncation=False, padding=False)
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
    return tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)


def scores_of(engine: Engine, rows: Sequence[Row], batch: int, seed: int = 0) -> np.ndarray:
    """Scores in batches of `batch` rows in random order, given back in the order of `rows`."""
    order = np.random.default_rng(seed).permutation(len(rows))
    scores = np.empty(len(rows))
    for begin in range(0, len(rows), batch):
        part = order[begin : begin + batch]
        scores[part] = engine.score([rows[index] for index in part])[:, 0]
    return scores
