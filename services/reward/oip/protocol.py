"""What the service says in the protocol, and how it is registered with a server."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.message_factory import GetMessageClass

from palate.oip.messages import NAME, SERVICE, message

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
