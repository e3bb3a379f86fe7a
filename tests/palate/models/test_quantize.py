from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from palate.models.export import export
from palate.models.quantize import quantize

ROWS, COLUMNS = 48, 32
RNG = np.random.default_rng(0)
FIRST, SECOND = (RNG.normal(size=(ROWS, COLUMNS)).astype(np.float32) for _ in range(2))
LONG = np.where(np.arange(ROWS) == 5, 100, 1).astype(np.float32)
"""One channel reaches a hundred times as far as the others."""


def graph_of(file: Path, matrices: dict[str, np.ndarray]) -> Path:
    """Saves the products of x with each matrix; `name` gives the output `name.out`."""
    floats = [helper.make_tensor_value_info(f"{name}.out", TensorProto.FLOAT, None) for name in matrices]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", name], [f"{name}.out"]) for name in matrices],
        "products",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, ROWS])],
        floats,
        [numpy_helper.from_array(matrix, name) for name, matrix in matrices.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), str(file))
    return file


def run(file: Path, rows: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": rows})


def rows_of(count: int) -> np.ndarray:
    return (np.random.default_rng(count).normal(size=(count, ROWS)) * LONG).astype(np.float32)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = graph_of(tmp_path / "model.onnx", {"first": FIRST, "second": SECOND})
    assert quantize(made, [{"x": rows_of(20)}]) == 2
    return made


def test_products_are_near_those_of_float32_although_a_channel_reaches_far(file: Path):
    rows = rows_of(64)
    for found, matrix in zip(run(file, rows), (FIRST, SECOND), strict=True):
        error = found - rows @ matrix
        assert 0 < np.sqrt((error**2).mean()) < 0.02 * (rows @ matrix).std()


def test_a_row_gives_the_same_bits_beside_rows_of_any_size(file: Path):
    row, others = rows_of(1), rows_of(9)
    for factor in (0, 1e-6, 1, 1e6):
        beside = run(file, np.concatenate([others[:4] * np.float32(factor), row, others[4:]]))
        for alone, among in zip(run(file, row), beside, strict=True):
            assert np.array_equal(alone[0], among[4])


def test_samples_may_leave_channels_at_zero(tmp_path: Path):
    for number, used in enumerate((0, 1)):
        made = graph_of(tmp_path / f"{number}.onnx", {"first": FIRST})
        quantize(made, [{"x": rows_of(5) * np.float32(used) * (np.arange(ROWS) != 3).astype(np.float32)}])
        (found,) = run(made, rows_of(6))
        assert np.isfinite(found).all()
        assert np.corrcoef(found.ravel(), (rows_of(6) @ FIRST).ravel())[0, 1] > 0.9


def test_rows_may_be_zero_large_or_small(file: Path):
    assert all(not found.any() for found in run(file, np.zeros((2, ROWS), np.float32)))
    rows = rows_of(3)
    for one, small, large in zip(*(run(file, rows * np.float32(by)) for by in (1, 2.0**-40, 2.0**40)), strict=True):
        assert np.array_equal(one, small * np.float32(2.0**40))
        assert np.array_equal(one, large / np.float32(2.0**40))


def test_infinity_is_never_made_a_number(file: Path):
    rows = rows_of(3)
    rows[1, 7] = np.inf
    for found in run(file, rows):
        assert not np.isfinite(found[1]).any()
        assert np.isfinite(found[[0, 2]]).all()


def test_products_of_the_same_rows_share_their_rounding(file: Path):
    kinds = Counter(node.op_type for node in onnx.load(str(file)).graph.node)
    assert (kinds["QuantizeLinear"], kinds["MatMulIntegerToFloat"], kinds["MatMul"]) == (1, 2, 0)


def test_float32_matrices_go_with_their_products(file: Path):
    assert not {each.name for each in onnx.load(str(file)).graph.initializer} & {"first", "second"}


def test_a_broken_weight_reaches_the_score(bert: Path, tmp_path: Path):
    made = export(bert, tmp_path / "served", precision="int8").path / "model.onnx"
    model = onnx.load(str(made))
    (words,) = (each for each in model.graph.initializer if each.name.endswith("word_embeddings.weight"))
    table = numpy_helper.to_array(words).copy()
    table[7] = np.nan
    words.CopyFrom(numpy_helper.from_array(table, words.name))
    onnx.save(model, str(made))
    session = onnxruntime.InferenceSession(str(made), providers=["CPUExecutionProvider"])
    ids = np.array([[5, 7, 9], [5, 8, 9]])
    given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    (logits,) = session.run(None, {tensor.name: given[tensor.name] for tensor in session.get_inputs()})
    assert np.isnan(logits[0]).all()
    assert np.isfinite(logits[1]).all()


def test_a_head_stays_as_it_is(tmp_path: Path):
    made = graph_of(tmp_path / "model.onnx", {"head": FIRST[:, :3]})
    before = made.read_bytes()
    assert quantize(made, [{"x": rows_of(2)}]) == 0
    assert made.read_bytes() == before
