"""Makes the weights of an ONNX graph int8, in such a way that a row's result does not depend on the rows beside it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_BLOCK_SIZE = 32
"""Weights that share a scale: the smallest the kernels know, which is the most exact."""

_INT8_PRODUCTS = 4
"""ONNX Runtime's `accuracy_level` that quantises activations too, with a scale for each block of each row.

The usual dynamic quantisation has one scale for a whole tensor: a row's score then moves with its neighbours.
"""


def quantize_weights(file: Path) -> int:
    """Replaces the products with constant matrices in `file` by int8 ones; returns how many were replaced."""
    import onnx

    with _quiet_import():
        from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    config = DefaultWeightOnlyQuantConfig(
        block_size=_BLOCK_SIZE, is_symmetric=True, accuracy_level=_INT8_PRODUCTS, bits=8
    )
    quantizer = MatMulNBitsQuantizer(onnx.load(str(file)), algo_config=config)
    quantizer.process()
    quantizer.model.save_model_to_file(str(file), False)
    return sum(node.op_type == "MatMulNBits" for node in quantizer.model.model.graph.node)


@contextmanager
def _quiet_import() -> Iterator[None]:
    """The library sets up the root logger, at INFO, when it is imported; it does not where that has a handler."""
    handler = logging.NullHandler()
    logging.root.addHandler(handler)
    try:
        yield
    finally:
        logging.root.removeHandler(handler)
