from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from palate.models.classifier import load_classifier
from palate.models.folder import ModelFolder
from palate.models.manifest import load_manifest
from palate.models.tolerances import TOLERANCES
from services.reward.config import RewardConfig
from services.reward.engine import Row
from services.reward.layout import ONE_LANE
from services.reward.padding import pad
from services.reward.parity import ParityError, check_parity, prove_strict
from services.reward.parity.probing import probe_rows, random_batches
from services.runtime.batching import BatchLimits
from tests.services.reward.references import open_folder

LIMITS = BatchLimits(64, 8192)


class Leaky:
    """A real engine's scores, moved by the rows beside them: what a wrong mask or position does."""

    name, dtype, layout = "leaky", "float32", ONE_LANE

    def __init__(self, engine, leak: float) -> None:
        self._engine, self._leak = engine, leak

    def score(self, rows: Sequence[Row], alone: bool = False) -> np.ndarray:
        return self._engine.score(rows) + np.float32(self._leak * (len(rows) - 1))


class WronglyPadded:
    """A real encoder that is padded as it must not be: on the left, so that positions move, or without a mask."""

    name, dtype, layout = "wrongly padded", "float32", ONE_LANE

    def __init__(self, folder: Path, fault: str) -> None:
        self._model = load_classifier(folder, load_manifest(folder).manifest)
        self._pad_id = ModelFolder(folder).pad_token_id or 0
        self._fault = fault

    @torch.inference_mode()
    def score(self, rows: Sequence[Row], alone: bool = False) -> np.ndarray:
        batch = pad(rows, self._pad_id)
        arrays = [batch.input_ids, batch.attention_mask, batch.token_type_ids]
        if self._fault == "left":
            empty = (batch.attention_mask == 0).sum(axis=1)
            arrays = [np.stack([np.roll(*one) for one in zip(each, empty, strict=True)]) for each in arrays]
        elif self._fault == "no mask":
            arrays[1] = np.ones_like(arrays[1])
        return self._model(*map(torch.from_numpy, arrays)).numpy()


class Forgetful:
    """Gives other bits each time it is asked."""

    name, dtype, layout = "forgetful", "float32", ONE_LANE

    def __init__(self) -> None:
        self._asked = 0

    def score(self, rows: Sequence[Row], alone: bool = False) -> np.ndarray:
        self._asked += 1
        return np.array([[len(row.token_ids) + self._asked / 1024] for row in rows], np.float32)


@pytest.mark.parametrize("name", ["torch", "onnx", "fake"])
def test_our_engines_pass(exported_llama: Path, name: str):
    engine, renderer = open_folder(exported_llama, name)
    assert check_parity(engine, renderer, 1e-4).deviation <= 1e-4


def test_onnx_on_a_tiny_encoder_is_bitwise(exported_bert: Path):
    engine, renderer = open_folder(exported_bert, "onnx")
    assert check_parity(engine, renderer, 1e-4).is_bitwise


def test_engine_whose_scores_depend_on_the_batch_is_refused(exported_bert: Path):
    engine, renderer = open_folder(exported_bert, "onnx")
    with pytest.raises(ParityError, match="standard deviations apart"):
        check_parity(Leaky(engine, 1e-3), renderer, 1e-4)
    assert check_parity(Leaky(engine, 1e-3), renderer, 1.0).deviation > 1e-4


@pytest.mark.parametrize("fault", ["left", "no mask"])
def test_wrong_padding_of_an_encoder_is_caught(bert: Path, fault: str):
    _, renderer = open_folder(bert, "fake")
    right = check_parity(WronglyPadded(bert, ""), renderer, TOLERANCES["float32"].batch)
    assert right.deviation < 1e-5  # the double itself is sound
    with pytest.raises(ParityError, match="standard deviations apart"):
        check_parity(WronglyPadded(bert, fault), renderer, TOLERANCES["bfloat16"].batch)


def test_scores_that_are_no_numbers_are_refused(exported_bert: Path):
    engine, renderer = open_folder(exported_bert, "onnx")
    with pytest.raises(ParityError, match="not finite"):
        check_parity(Leaky(engine, float("nan")), renderer, 1e-4)


@pytest.mark.parametrize("folder", ["exported_bert", "exported_llama"])
def test_strict_keeps_the_batches_of_an_engine_that_keeps_its_bits(folder: str, request: pytest.FixtureRequest):
    engine, renderer = open_folder(request.getfixturevalue(folder), "onnx", strict=True)
    assert prove_strict(engine, renderer, LIMITS) is engine


def test_strict_computes_row_by_row_where_the_batch_shows(exported_bert: Path):
    engine, renderer = open_folder(exported_bert, "onnx")
    rows = probe_rows(renderer)
    for seed, leak in enumerate((1e-3, 1e-1)):
        proved = prove_strict(Leaky(engine, leak), renderer, LIMITS)
        (*_, places) = random_batches(rows, 64, 8192, seed)
        alone = np.concatenate([engine.score([rows[place]]) for place in places])
        assert proved.score([rows[place] for place in places]).tobytes() == alone.tobytes()


def test_strict_is_refused_where_not_even_a_row_alone_keeps_its_bits(exported_bert: Path):
    _, renderer = open_folder(exported_bert, "fake")
    with pytest.raises(ParityError, match="other bits when asked again"):
        prove_strict(Forgetful(), renderer, LIMITS)


@pytest.mark.parametrize(("max_items", "sizes"), [(1, [1]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])])
def test_random_batches_grow_to_the_largest_and_fit(exported_bert: Path, max_items: int, sizes: list[int]):
    _, renderer = open_folder(exported_bert, "fake")
    rows = probe_rows(renderer)
    assert [len(batch) for batch in random_batches(rows, max_items, 8192, 0)] == sizes
    assert list(random_batches(rows, max_items, 8192, 0)) == list(random_batches(rows, max_items, 8192, 0))
    for batch in random_batches(rows, 64, 300, 1):
        assert len(batch) == 1 or len(batch) * max(len(rows[place].token_ids) for place in batch) <= 300


def test_tolerance_is_that_of_the_number_format_unless_told(exported_bert: Path):
    assert RewardConfig(model=exported_bert).tolerance("int8") == TOLERANCES["int8"].batch
    assert RewardConfig(model=exported_bert).tolerance("float32+bfloat16") == TOLERANCES["bfloat16"].batch
    assert RewardConfig(model=exported_bert, parity_tolerance=0.02).tolerance("bfloat16") == 0.02
