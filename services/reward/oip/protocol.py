"""The protocol's messages, in a descriptor pool of their own: in the default one they collide with tritonclient's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
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


ModelInferResponse = message("ModelInferResponse")
ModelMetadataResponse = message("ModelMetadataResponse")
ModelReadyResponse = message("ModelReadyResponse")
ServerLiveResponse = message("ServerLiveResponse")
ServerMetadataResponse = message("ServerMetadataResponse")
ServerReadyResponse = message("ServerReadyResponse")


def add_to_server(servicer: Any, server: Any) -> None:
    """Registers `servicer`, which has a method for each RPC."""
    handlers = {
        method.name: grpc.unary_unary_rpc_method_handler(
            getattr(servicer, method.name),
            request_deserializer=GetMessageClass(method.input_type).FromString,
            response_serializer=GetMessageClass(method.output_type).SerializeToString,
        )
        for method in SERVICE.methods
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, handlers),))
