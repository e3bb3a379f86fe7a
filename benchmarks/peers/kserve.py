"""Requests and answers of the KServe protocol, which Triton speaks; as little of it as two texts and a score need."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from benchmarks.wire import Pair

_KINDS = {"string": 9, "bytes": 12, "int64": 3, "Tensor": 11}
_MESSAGES: dict[str, Sequence[tuple[str, int, str, bool]]] = {
    "Tensor": (("name", 1, "string", False), ("datatype", 2, "string", False), ("shape", 3, "int64", True)),
    "Request": (
        ("model_name", 1, "string", False),
        ("inputs", 5, "Tensor", True),
        ("raw_input_contents", 7, "bytes", True),
    ),
    "Response": (("model_name", 1, "string", False), ("raw_output_contents", 6, "bytes", True)),
}
"""Fields by name, number, type, and whether they repeat. Source: open_inference_grpc.proto of kserve."""


def infer_request(pair: Pair) -> bytes:
    """ModelInfer of one pair, as BYTES."""
    tensors = [_message("Tensor")(name=name, datatype="BYTES", shape=[1, 1]) for name in ("prompt", "completion")]
    contents = [struct.pack("<I", len(text.encode())) + text.encode() for text in pair]
    request = _message("Request")(model_name="reward", inputs=tensors, raw_input_contents=contents)
    return bytes(request.SerializeToString())


def infer_score(body: bytes) -> float:
    """The score in ModelInfer's answer."""
    return float(struct.unpack("<f", _message("Response").FromString(body).raw_output_contents[0])[0])


def _pool() -> descriptor_pool.DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(name="kserve_part.proto", package="kserve_part", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind, repeats in fields:
            type_name = {"type_name": f".kserve_part.{kind}"} if kind == "Tensor" else {}
            label = 3 if repeats else 1
            message.field.add(name=field, number=number, type=_KINDS[kind], label=label, **type_name)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return pool


_POOL = _pool()


def _message(name: str) -> Any:
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"kserve_part.{name}"))
