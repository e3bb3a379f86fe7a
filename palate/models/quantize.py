"""Makes the products of an ONNX graph int8, in such a way that a row's result does not depend on the rows beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx

_STEP = np.float32(1 / 127)
"""Of a range that is as long on both sides of zero, in a signed byte."""

_ZERO = np.uint8(128)
"""Where zero lies in an input's byte: the kernels want unsigned inputs and signed weights."""

_FEWEST_COLUMNS = 16
"""Of a product that becomes int8: a head is too small to gain by it, and its rounding is a score's."""

_SHORTEST = np.float32(0.01)
"""Reach over the longest that a channel counts with at least: other texts may use what the samples leave unused."""

_TINY = np.float32(1e-30)
"""Taken for the largest element where all are zero."""

_CONTRIBUTED = "com.microsoft"
"""Where ONNX Runtime has the product that gives float32 at once."""

Samples = Sequence[Mapping[str, NDArray[Any]]]
"""Inputs of the graph, one row each, so that no padding is looked at."""


@dataclass(frozen=True, slots=True)
class _Group:
    """Products that read the same rows, and share how these are made int8.

    Attributes:
        source: Name of the (..., D) rows.
        weights: (D, columns) of each product, by the name of its output.
    """

    source: str
    weights: Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class _Writer:
    """Collects nodes and constants; `prefix` makes their names distinct."""

    prefix: str
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def constant(self, value: NDArray[Any] | np.generic) -> str:
        """Its name."""
        from onnx import numpy_helper

        name = f"{self.prefix}.constant.{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """The name of its output."""
        from onnx import helper

        output = output or f"{self.prefix}.{kind}.{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output


def quantize(file: Path, samples: Samples) -> int:
    """Replaces the products with constant matrices in `file` by int8 ones; returns how many were replaced.

    Every row has a scale of its own, which its largest element decides, and every column of a matrix another: what is
    summed is whole numbers, so that neither the other rows nor the order of the sum change a bit. Before that, channels
    that reach far are made smaller, and their weights larger by the same factor.

    Args:
        file: The graph, in float32; is overwritten.
        samples: What the model may read: how far its channels reach is looked up in them, and nothing else.

    Source: SmoothQuant (Xiao et al. 2023), with scales per token and per column; the factors are its equation 4.
    """
    import onnx

    model = onnx.load(str(file))
    groups = _groups(model.graph)
    if groups:
        reach = _reach(model, [group.source for group in groups], samples)
        _rewrite(model.graph, groups, reach)
        model.opset_import.append(onnx.helper.make_opsetid(_CONTRIBUTED, 1))
        onnx.save(model, str(file))
    return sum(len(group.weights) for group in groups)


def _groups(graph: onnx.GraphProto) -> list[_Group]:
    from onnx import numpy_helper

    matrices = {each.name: each for each in graph.initializer if len(each.dims) == 2}
    found: dict[str, dict[str, NDArray[np.float32]]] = {}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in matrices:
            weights = numpy_helper.to_array(matrices[node.input[1]])
            if weights.shape[1] >= _FEWEST_COLUMNS:
                found.setdefault(node.input[0], {})[node.output[0]] = weights
    return [_Group(source, weights) for source, weights in found.items()]


def _reach(model: onnx.ModelProto, sources: Sequence[str], samples: Samples) -> dict[str, NDArray[np.float32]]:
    """(D,) largest magnitude of every channel of `sources` over the samples."""
    import onnx

    from palate.models.onnx_runtime import onnxruntime

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.extend(onnx.ValueInfoProto(name=source) for source in sources)
    session = onnxruntime.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    seen = [[_by_channel(rows) for rows in session.run(sources, dict(sample))] for sample in samples]
    return {source: np.max(reach, axis=0) for source, reach in zip(sources, zip(*seen, strict=True), strict=True)}


def _by_channel(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """(D,) largest magnitudes of (..., D)."""
    largest: NDArray[np.float32] = np.abs(rows.reshape(-1, rows.shape[-1])).max(axis=0)
    return largest


def _rewrite(graph: onnx.GraphProto, groups: Sequence[_Group], reach: Mapping[str, NDArray[np.float32]]) -> None:
    """Puts a group's int8 products where its first float32 one stood."""
    places: dict[str, list[onnx.NodeProto]] = {}
    for number, group in enumerate(groups):
        writer = _Writer(f"int8.{number}")
        _write(group, reach[group.source], writer)
        first, *others = group.weights
        places |= {first: writer.nodes} | {other: [] for other in others}
        graph.initializer.extend(writer.constants)
    nodes = [new for node in graph.node for new in places.get(node.output[0], [node])]
    used = {name for node in nodes for name in node.input}
    constants = [each for each in graph.initializer if each.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(constants)


def _write(group: _Group, reach: NDArray[np.float32], writer: _Writer) -> None:
    factors = _smoothing(reach, list(group.weights.values()))  # (D,)
    smooth = writer.node("Mul", group.source, writer.constant(1 / factors))
    largest = writer.node("ReduceMax", writer.node("Abs", smooth), axes=[-1], keepdims=1)
    scale = writer.node("Mul", writer.node("Max", largest, writer.constant(_TINY)), writer.constant(_STEP))  # (..., 1)
    one, zero = writer.constant(np.float32(1)), writer.constant(_ZERO)
    rounded = writer.node("QuantizeLinear", writer.node("Div", smooth, scale), one, zero)
    for output, weights in group.weights.items():
        whole, steps = _per_column(weights * factors[:, None])
        inputs = rounded, writer.constant(whole), one, writer.constant(steps), zero
        product = writer.node("MatMulIntegerToFloat", *inputs, domain=_CONTRIBUTED)
        writer.node("Mul", product, scale, output=output)


def _smoothing(reach: NDArray[np.float32], weights: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """(D,) factors by which inputs are divided and weights multiplied."""
    theirs = np.max([np.abs(each).max(axis=1) for each in weights], axis=0)
    factors: NDArray[np.float32] = np.sqrt(_above_zero(reach) / _above_zero(theirs))
    return factors


def _above_zero(reach: NDArray[np.float32]) -> NDArray[np.float32]:
    """With a share of the longest for channels that are hardly used."""
    return np.maximum(reach, max(_SHORTEST * reach.max(), _TINY))


def _per_column(weights: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """(D, columns) whole numbers, and the (columns,) steps to multiply them by."""
    steps = np.maximum(np.abs(weights).max(axis=0), _TINY) * _STEP
    return np.round(weights / steps).astype(np.int8), steps
