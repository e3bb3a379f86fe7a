"""Base of what is read from YAML: a yes is no number, although YAML makes True of it, which Python counts as 1."""

from __future__ import annotations

from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationInfo, field_validator


class PlainModel(BaseModel):
    """A model none of whose numbers may be given as a switch."""

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and not _takes_switch(cls.model_fields[info.field_name or ""].annotation):
            raise ValueError("a number is wanted here, and YAML reads yes, no, on and off as switches")
        return value


def _takes_switch(annotation: Any) -> bool:
    kinds = set(_kinds(annotation))
    return bool in kinds or not kinds & {int, float}


def _kinds(annotation: Any) -> Iterator[Any]:
    """The types that a union names, without what they are annotated with, or the one that there is."""
    if get_origin(annotation) is Annotated:
        yield from _kinds(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for member in get_args(annotation):
            yield from _kinds(member)
    else:
        yield annotation
