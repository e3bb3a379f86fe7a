"""Protobuf messages of any type, filled with what is usual, extreme or out of range."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.descriptor import FieldDescriptor as Field
from google.protobuf.message import Message
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

Values = Mapping[str, SearchStrategy[Any]]
"""By full name of a field: what it may hold, beside what its type may."""

_MOST_REPEATED = 4

TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["", " ", "\0", "user", "assistant", "system", "{{ 7 * 7 }}", "<s></s>", "a" * 3000, "\u202e🙂"]),
)

_BITS = {Field.CPPTYPE_INT32: 31, Field.CPPTYPE_INT64: 63, Field.CPPTYPE_UINT32: 32, Field.CPPTYPE_UINT64: 64}


def messages(kind: type[Message], values: Values | None = None) -> SearchStrategy[bytes]:
    """Serialised messages of `kind`."""
    return filled(kind, values).map(lambda message: message.SerializeToString())


@st.composite
def filled(draw: st.DrawFn, kind: type[Message], values: Values | None = None) -> Message:
    """A message, some of its fields set."""
    message = kind()
    for described in message.DESCRIPTOR.fields:
        if draw(st.integers(0, 9)) < 7:
            _fill(draw, message, described, values or {})
    return message


def _fill(draw: st.DrawFn, message: Any, described: Any, values: Values) -> None:
    if described.message_type is not None and described.message_type.GetOptions().map_entry:
        _fill_map(draw, getattr(message, described.name), described, values)
    elif described.is_repeated:
        drawn = [_value(draw, message, described, values) for _ in range(draw(st.integers(0, _MOST_REPEATED)))]
        getattr(message, described.name).extend(drawn)
    elif described.message_type is not None:
        getattr(message, described.name).CopyFrom(_value(draw, message, described, values))
    else:
        setattr(message, described.name, _value(draw, message, described, values))


def _fill_map(draw: st.DrawFn, container: Any, described: Any, values: Values) -> None:
    keys = values.get(f"{described.full_name}.key", TEXTS)
    for key in draw(st.lists(keys, max_size=_MOST_REPEATED)):
        entry = filled(container.GetEntryClass()().value.__class__, values)
        container[key].CopyFrom(draw(entry))


def _value(draw: st.DrawFn, message: Any, described: Any, values: Values) -> Any:
    usual = values.get(described.full_name)
    if usual is not None and draw(st.integers(0, 9)) < 8:
        return draw(usual)
    if described.message_type is not None:
        owner = type(message)()
        target = getattr(owner, described.name)
        kind = type(target.add()) if described.is_repeated else type(target)
        return draw(filled(kind, values))
    return draw(_scalars(described))


def _scalars(described: Any) -> SearchStrategy[Any]:
    kind = described.cpp_type
    if kind in _BITS:
        high = 2 ** _BITS[kind] - 1
        low = -high - 1 if kind in (Field.CPPTYPE_INT32, Field.CPPTYPE_INT64) else 0
        return st.one_of(st.integers(0, 8), st.sampled_from([low, high]), st.integers(low, high))
    if kind in (Field.CPPTYPE_DOUBLE, Field.CPPTYPE_FLOAT):
        return st.floats(width=32 if kind == Field.CPPTYPE_FLOAT else 64)
    if kind == Field.CPPTYPE_BOOL:
        return st.booleans()
    if kind == Field.CPPTYPE_ENUM:
        return st.integers(-1, 8)
    return st.binary(max_size=40) if described.type == Field.TYPE_BYTES else TEXTS
