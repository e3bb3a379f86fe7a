"""Engines of reward models: in float32 as PyTorch on the processor, strict ones with the same bits in every batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from palate.models.folder import FolderError
from services.reward.engine import Engine, Row
from services.reward.recorded_passes import RecordedPasses
from tests.checks.gpu.seen import Place, Seen, agreement, pairs, timed
from tests.services.reward.references import open_folder, rows_of, scores_of

_ROWS = 256
_BATCH = 64


def engines(place: Place) -> Iterator[Seen]:
    """Of an encoder and a decoder."""
    for name in ("encoder", "decoder"):
        yield from _engines(name, place.served(name), place.device)


def _engines(name: str, folder: Path, device: str) -> Iterator[Seen]:
    """Scores of every engine against those of PyTorch on the processor."""
    compared = pairs(_ROWS)
    reference, renderer = open_folder(folder, "torch")
    given = rows_of(renderer, compared)
    expected = scores_of(reference, given, _BATCH)
    for engine, dtype in (("torch", "float32"), ("torch", "bfloat16"), ("onnx", "float32")):
        what = f"{name}, {engine}, {dtype}"
        try:
            opened, _ = open_folder(folder, engine, device=device, dtype=dtype)
            strict, _ = open_folder(folder, engine, device=device, dtype=dtype, strict=True)
        except FolderError as missing:
            yield Seen(what, str(missing), "", None)
            continue
        if engine == "torch" and device != "cpu":
            recorded = isinstance(opened._forward, RecordedPasses)  # type: ignore[attr-defined]  # of the engine alone
            yield Seen(f"{what}, short passes", "recorded" if recorded else "not recorded", "recorded", recorded)
        yield agreement(what, expected, scores_of(opened, given, _BATCH), dtype)
        yield Seen(f"{what}, speed", f"{_rows_per_second(opened, given):.0f} rows/s", "", None)
        yield _same_bits(f"{what}, strict", strict, given[:96])


def _rows_per_second(engine: Engine, given: Sequence[Row]) -> float:
    """The best of three passes, after one that warms up."""
    ordered = sorted(given, key=lambda row: len(row.token_ids))
    seconds = [timed(partial(_pass, engine, ordered)) for _ in range(4)][1:]
    return len(given) / min(seconds)


def _pass(engine: Engine, given: Sequence[Row]) -> None:
    for begin in range(0, len(given), _BATCH):
        engine.score(given[begin : begin + _BATCH])


def _same_bits(what: str, engine: Engine, given: Sequence[Row]) -> Seen:
    """Random batches of every size against each row alone."""
    alone = scores_of(engine, given, 1)
    others = [scores_of(engine, given, batch, seed) for seed, batch in enumerate((2, 7, 16, 33, 96))]
    wrong = sum(not np.array_equal(alone, found) for found in others)
    return Seen(what, f"{wrong} of {len(others)} batchings give other bits", "0", wrong == 0)
