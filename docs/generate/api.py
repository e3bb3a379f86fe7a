"""Writes docs/api.md from the protos: every RPC, message, field and enum with its comment."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)

ROOT = Path(__file__).parents[2]
PROTOS = ("common", "reward_service", "admin_service", "policy_service")

# Numbers of the fields that source locations name (descriptor.proto).
_MESSAGES, _ENUMS, _SERVICES, _FIELDS, _VALUES, _METHODS = 4, 5, 6, 2, 2, 2


def api() -> str:
    """The whole page."""
    parts = ["# The contract, `palate.v1`", "", "Generated from `protos/palate/v1/` by `make docs`; do not edit.", ""]
    for file in _files():
        comments = _comments(file)
        for index, service in enumerate(file.service):
            parts.extend(_service(service, comments, index))
        for index, message in enumerate(file.message_type):
            parts.extend(_message(message, comments, index))
        for index, enum in enumerate(file.enum_type):
            parts.extend(_enum(enum, comments, index))
    return "\n".join(parts).rstrip() + "\n"


def _files() -> Iterator[FileDescriptorProto]:
    with tempfile.NamedTemporaryFile(suffix=".binpb") as image:
        sources = [str(ROOT / "protos/palate/v1" / f"{name}.proto") for name in PROTOS]
        protoc = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'protos'}", "--include_source_info"]
        subprocess.run([*protoc, f"--descriptor_set_out={image.name}", *sources], check=True)
        found = {file.name: file for file in FileDescriptorSet.FromString(Path(image.name).read_bytes()).file}
    return (found[f"palate/v1/{name}.proto"] for name in PROTOS)


def _comments(file: FileDescriptorProto) -> dict[tuple[int, ...], str]:
    """Path of an element → its comment on one line."""
    locations = file.source_code_info.location
    return {
        tuple(place.path): " ".join(place.leading_comments.split()) for place in locations if place.leading_comments
    }


def _service(service: ServiceDescriptorProto, comments: dict[tuple[int, ...], str], index: int) -> Iterator[str]:
    yield from (
        f"## {service.name}",
        "",
        comments[_SERVICES, index],
        "",
        "| RPC | takes | gives | |",
        "|---|---|---|---|",
    )
    for number, method in enumerate(service.method):
        takes = ("stream of " if method.client_streaming else "") + _link(method.input_type)
        gives = ("stream of " if method.server_streaming else "") + _link(method.output_type)
        yield f"| `{method.name}` | {takes} | {gives} | {comments[_SERVICES, index, _METHODS, number]} |"
    yield ""


def _message(message: DescriptorProto, comments: dict[tuple[int, ...], str], index: int) -> Iterator[str]:
    yield from (f"### {message.name}", "", comments[_MESSAGES, index], "")
    if message.field:
        yield from ("| field | type | |", "|---|---|---|")
    for number, field in enumerate(message.field):
        comment = comments[_MESSAGES, index, _FIELDS, number]
        yield f"| `{field.name}` | {_type(field, message)} | {comment} |"
    yield ""


def _enum(enum: EnumDescriptorProto, comments: dict[tuple[int, ...], str], index: int) -> Iterator[str]:
    yield from (f"### {enum.name}", "", comments[_ENUMS, index], "", "| value | |", "|---|---|")
    for number, value in enumerate(enum.value):
        yield f"| `{value.name}` = {value.number} | {comments[_ENUMS, index, _VALUES, number]} |"
    yield ""


def _type(field: FieldDescriptorProto, message: DescriptorProto) -> str:
    named = field.type in (FieldDescriptorProto.TYPE_MESSAGE, FieldDescriptorProto.TYPE_ENUM)
    name = _link(field.type_name) if named else FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated {name}"
    if field.proto3_optional:
        return f"optional {name}"
    if field.HasField("oneof_index"):
        return f"{name}, one of `{message.oneof_decl[field.oneof_index].name}`"
    return name


def _link(type_name: str) -> str:
    name = type_name.rpartition(".")[2]
    return f"[{name}](#{name.lower()})" if type_name.startswith(".palate") else f"`{type_name.lstrip('.')}`"


if __name__ == "__main__":
    (ROOT / "docs/api.md").write_text(api(), encoding="utf-8")
