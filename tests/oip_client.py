"""A client of the Open Inference Protocol made of the service's own message classes."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import grpc

from palate.oip.messages import NAME, message


class OipClient:
    """Calls by the name of the RPC."""

    def __init__(self, channel: grpc.Channel, token: str = "") -> None:
        self._channel = channel
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()

    def call(self, rpc: str, request: Any = None, timeout: float = 30) -> Any:
        """The reply to `request`, by default an empty message."""
        call = self._channel.unary_unary(
            f"/{NAME}/{rpc}",
            request_serializer=lambda each: each.SerializeToString(),
            response_deserializer=message(f"{rpc}Response").FromString,
        )
        return call(message(f"{rpc}Request")() if request is None else request, timeout, self._metadata)


def infer_request(
    *inputs: dict[str, Any], raw: Sequence[bytes] = (), outputs: Sequence[str] = (), **fields: Any
) -> Any:
    """A ModelInferRequest; `fields` may hold `parameters` as plain values."""
    parameters: Mapping[str, Any] = fields.pop("parameters", {})
    request = message("ModelInferRequest")(
        inputs=inputs, raw_input_contents=raw, outputs=[{"name": name} for name in outputs], **fields
    )
    for name, value in parameters.items():
        kind = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}[type(value)]
        setattr(request.parameters[name], kind, value)
    return request


def column(name: str, elements: Sequence[Any], datatype: str = "BYTES") -> dict[str, Any]:
    """An input of shape (N, 1) with typed contents."""
    field = {"BYTES": "bytes_contents", "INT64": "int64_contents"}[datatype]
    return {"name": name, "datatype": datatype, "shape": [len(elements), 1], "contents": {field: elements}}


def table(name: str, rows: Sequence[Sequence[int]]) -> dict[str, Any]:
    """An INT64 input of shape (N, M) with typed contents; short rows are filled with zeros."""
    width = max(map(len, rows))
    ids = [token for row in rows for token in [*row, *[0] * (width - len(row))]]
    return {"name": name, "datatype": "INT64", "shape": [len(rows), width], "contents": {"int64_contents": ids}}


def texts_request(pairs: Sequence[tuple[str, str]], **fields: Any) -> Any:
    """A request for (prompt, completion) pairs."""
    prompts, completions = zip(*pairs, strict=True)
    encoded = [
        column(name, [t.encode() for t in side]) for name, side in (("PROMPT", prompts), ("RESPONSE", completions))
    ]
    return infer_request(*encoded, **fields)


def packed(elements: Sequence[bytes]) -> bytes:
    """BYTES elements in raw form."""
    return b"".join(struct.pack("<I", len(element)) + element for element in elements)


def outputs_of(response: Any) -> dict[str, list[Any]]:
    """The elements of each output, where contents are typed."""
    return {
        output.name: [element for _, elements in output.contents.ListFields() for element in elements]
        for output in response.outputs
    }
