from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from services.reward.config import RewardConfig
from services.reward.engine import Row
from services.reward.parity import ParityError, check_parity
from tests.services.reward.references import open_folder


class Leaky:
    """A real engine's scores, moved by the rows beside them: what a wrong mask or position does."""

    name, dtype = "leaky", "float32"

    def __init__(self, engine, leak: float) -> None:
        self._engine, self._leak = engine, leak

    def score(self, rows: Sequence[Row]) -> np.ndarray:
        return self._engine.score(rows) + np.float32(self._leak * (len(rows) - 1))


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


def test_scores_that_are_no_numbers_are_refused(exported_bert: Path):
    engine, renderer = open_folder(exported_bert, "onnx")
    with pytest.raises(ParityError, match="not finite"):
        check_parity(Leaky(engine, float("nan")), renderer, 1e-4)


def test_strict_allows_no_difference_at_all(exported_bert: Path):
    engine, renderer = open_folder(exported_bert, "onnx")
    strict = RewardConfig(model=exported_bert, strict=True, parity_tolerance=0.5).tolerance("float32")
    assert check_parity(engine, renderer, strict).is_bitwise
    with pytest.raises(ParityError, match="allowed are 0"):
        check_parity(Leaky(engine, 1e-6), renderer, strict)


def test_tolerance_is_that_of_the_number_format_unless_told(exported_bert: Path):
    assert RewardConfig(model=exported_bert).tolerance("int8") == 1e-4
    assert RewardConfig(model=exported_bert).tolerance("bfloat16") == 0.1
    assert RewardConfig(model=exported_bert, parity_tolerance=0.02).tolerance("bfloat16") == 0.02
