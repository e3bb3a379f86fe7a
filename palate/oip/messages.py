"""The protocol's messages, in a descriptor pool of their own: in the default one they collide with tritonclient's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

DESCRIPTOR_SET = Path(__file__).with_name("open_inference.binpb")


def _pool() -> DescriptorPool:
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString(DESCRIPTOR_SET.read_bytes()).file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


POOL = _pool()

NAME = "inference.GRPCInferenceService"

SERVICE: Any = POOL.FindServiceByName(NAME)


def message(name: str) -> Any:
    """The class of a message, e.g. "ModelInferRequest"."""
    return GetMessageClass(POOL.FindMessageTypeByName(f"inference.{name}"))
