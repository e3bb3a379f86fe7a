"""Tensors as the protocol carries them: typed contents or raw bytes, read and written; nothing of reward models."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from services.runtime.errors import InvalidRequest

Values: TypeAlias = "list[bytes] | NDArray[Any]"
"""Elements in row-major order: a list of BYTES, or a flat array of anything else."""

BYTES = "BYTES"

_FIELDS = {
    BYTES: "bytes_contents",
    "BOOL": "bool_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
}
"""Datatypes that this server reads or writes, and where typed contents have them."""

_DTYPES = {"BOOL": np.dtype("?"), "INT32": np.dtype("<i4"), "INT64": np.dtype("<i8"), "FP32": np.dtype("<f4")}

_LENGTH = struct.Struct("<I")


def raw_contents(request: Any) -> list[bytes | None]:
    """The raw bytes of every input of a ModelInferRequest, or None for each where contents are typed.

    Raises:
        InvalidRequest: There are raw contents of some inputs only, or of both kinds.
    """
    raw = request.raw_input_contents
    if not raw:
        return [None] * len(request.inputs)
    if len(raw) != len(request.inputs):
        raise InvalidRequest(
            f"raw_input_contents has {len(raw)} entries for {len(request.inputs)} inputs; give one for each"
        )
    for tensor in request.inputs:
        if tensor.HasField("contents"):
            raise InvalidRequest(
                f"{shown(tensor.name)} has contents beside raw_input_contents; give the data in one of the two"
            )
    return list(raw)


def read_values(tensor: Any, raw: bytes | None) -> Values:
    """The elements of an InferInputTensor whose shape has no negative size; takes no more memory than they do.

    Args:
        tensor: Name, datatype and shape count; contents where `raw` is None.
        raw: As `raw_contents` gives it.

    Raises:
        InvalidRequest: Contents do not fit datatype and shape; the message names the tensor.
    """
    count = math.prod(tensor.shape)
    if raw is None:
        return _typed(tensor, count)
    if tensor.datatype == BYTES:
        return unpack_bytes(raw, count, tensor.name)
    dtype = _DTYPES[tensor.datatype]
    if len(raw) != count * dtype.itemsize:
        raise _misfit(tensor, f"{count * dtype.itemsize} bytes", f"{len(raw)} came")
    return np.frombuffer(raw, dtype)


def unpack_bytes(raw: bytes, count: int, name: str) -> list[bytes]:
    """BYTES elements out of their raw form: each after its length, four bytes, little-endian.

    Raises:
        InvalidRequest: They are not exactly `count`.
    """
    elements, position = [], 0
    for index in range(count):
        begin = position + _LENGTH.size
        if begin > len(raw):
            raise InvalidRequest(f"{shown(name)}: its raw bytes end before element {index} of {count}")
        end = begin + _LENGTH.unpack_from(raw, position)[0]
        if end > len(raw):
            raise InvalidRequest(
                f"{shown(name)}: element {index} claims {end - begin} bytes, {len(raw) - begin} are left; each follows "
                "its length in four bytes, little-endian"
            )
        elements.append(raw[begin:end])
        position = end
    if position != len(raw):
        raise InvalidRequest(f"{shown(name)}: {len(raw) - position} bytes are left after its {count} elements")
    return elements


def pack_bytes(elements: Sequence[bytes]) -> bytes:
    """The inverse of `unpack_bytes`."""
    return b"".join(part for element in elements for part in (_LENGTH.pack(len(element)), element))


def add_output(response: Any, name: str, datatype: str, values: Values, *, raw: bool) -> None:
    """Appends a column, shape (N, 1), to a ModelInferResponse."""
    output = response.outputs.add(name=name, datatype=datatype, shape=[len(values), 1])
    if raw:
        response.raw_output_contents.append(_packed(values, datatype))
    else:
        elements = values if isinstance(values, list) else values.tolist()
        getattr(output.contents, _FIELDS[datatype]).extend(elements)


def shown(name: str) -> str:
    """A name of the caller's choice, as errors quote it: they hold no long texts."""
    return repr(name[:100])


def _packed(values: Values, datatype: str) -> bytes:
    return pack_bytes(values) if isinstance(values, list) else values.astype(_DTYPES[datatype]).tobytes()


def _typed(tensor: Any, count: int) -> Values:
    field = _FIELDS[tensor.datatype]
    if others := [other.name for other, _ in tensor.contents.ListFields() if other.name != field]:
        raise _misfit(tensor, f"contents in {field}", f"there are {', '.join(others)}")
    values = getattr(tensor.contents, field)
    if len(values) != count:
        raise _misfit(tensor, f"{count} elements in {field}", f"{len(values)} came")
    return list(values) if tensor.datatype == BYTES else np.array(values, _DTYPES[tensor.datatype])


def _misfit(tensor: Any, wanted: str, found: str) -> InvalidRequest:
    return InvalidRequest(
        f"{shown(tensor.name)}: {tensor.datatype} of shape {list(tensor.shape)} has {wanted}; {found}"
    )
