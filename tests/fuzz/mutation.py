"""Changes in messages that leave them messages: of bytes changed at random, gRPC's parser refuses nearly all."""

from __future__ import annotations

from random import Random
from typing import Any, TypeAlias

from tests.fuzz.harness import frame, frames_of

Value: TypeAlias = int | bytes
FieldOf: TypeAlias = tuple[int, int, Value]
"""Number, wire type, value: of protobuf's encoding, whose types are known without a schema."""

_VARINT, _EIGHT, _DELIMITED, _FOUR = 0, 1, 2, 5
_NUMBERS = (0, 1, 2, 3, 16, 127, 128, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)
_PIECES = ("", " ", "a", "\0", "\n", "user", "assistant", "{{", "<s>", "\u202e🙂", "a" * 300)
_DEEPEST = 6


def message(data: bytes, rng: Random, head: int = 0) -> bytes:
    """A message with one of its fields changed, left out, repeated or moved; `head` bytes before it stay."""
    fields = _fields(data[head:])
    changed = _text(data[head:], rng) if fields is None else _encoded(_changed(fields, rng, _DEEPEST))
    return data[:head] + changed


def messages(data: bytes, rng: Random, head: int = 0) -> bytes:
    """Framed messages, each after `head` bytes, of which one is changed, left out, repeated or moved."""
    parts = frames_of(data)
    _shuffled(parts, rng)
    if parts and rng.random() < 0.8:
        place = rng.randrange(len(parts))
        parts[place] = message(parts[place], rng, head)
    return b"".join(map(frame, parts))


def _changed(fields: list[FieldOf], rng: Random, depth: int) -> list[FieldOf]:
    fields = list(fields)
    if not fields or rng.random() < 0.2:
        _shuffled(fields, rng)
        return fields
    place = rng.randrange(len(fields))
    number, kind, value = fields[place]
    fields[place] = (number, kind, _other(kind, value, rng, depth))
    return fields


def _other(kind: int, value: Value, rng: Random, depth: int) -> Value:
    if isinstance(value, int):
        return rng.choice((*_NUMBERS, (value + 1) % 2**64, (value - 1) % 2**64))
    if kind in (_EIGHT, _FOUR):
        return rng.choice((rng.randbytes(len(value)), bytes(len(value)), b"\xff" * len(value)))
    inner = _fields(value) if value and depth else None
    return _text(value, rng) if inner is None else _encoded(_changed(inner, rng, depth - 1))


def _text(data: bytes, rng: Random) -> bytes:
    """Mostly still a text, where it was one."""
    text = data.decode("utf-8", "ignore")
    begin = rng.randint(0, len(text))
    changed = text[:begin] + rng.choice(_PIECES) + text[begin + rng.randint(0, 3) :]
    return changed.encode() + (b"\xff" if rng.random() < 0.05 else b"")


def _shuffled(parts: list[Any], rng: Random) -> None:
    """One is left out, repeated or moved, or none."""
    if not parts:
        return
    one = parts.pop(rng.randrange(len(parts)))
    for _ in range(rng.choice((0, 1, 1, 2))):
        parts.insert(rng.randint(0, len(parts)), one)


def _fields(data: bytes) -> list[FieldOf] | None:
    """The fields of a message; None where it is none."""
    fields: list[FieldOf] = []
    at = 0
    try:
        while at < len(data):
            key, at = _varint(data, at)
            kind = key & 7
            value: Value
            if kind == _VARINT:
                value, at = _varint(data, at)
            else:
                size, at = _varint(data, at) if kind == _DELIMITED else ({_EIGHT: 8, _FOUR: 4}[kind], at)
                value, at = data[at : at + size], at + size
            if key < 8 or at > len(data):
                return None
            fields.append((key >> 3, kind, value))
    except (LookupError, ValueError):
        return None
    return fields


def _encoded(fields: list[FieldOf]) -> bytes:
    parts = []
    for number, kind, value in fields:
        parts.append(_bytes_of(number << 3 | kind))
        if isinstance(value, int):
            parts.append(_bytes_of(value))
        else:
            parts.append((_bytes_of(len(value)) if kind == _DELIMITED else b"") + value)
    return b"".join(parts)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        value |= (data[at] & 127) << shift
        at += 1
        if data[at - 1] < 128:
            return value, at
    raise ValueError("a number of more than ten bytes")


def _bytes_of(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])
