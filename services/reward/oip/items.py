"""Inputs of a ModelInferRequest, turned into items as the contract has them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from palate.models.rendering import RenderingError
from palate.v1 import common_pb2 as common
from services.reward.inputs import Item
from services.reward.oip.signature import INPUTS, check_input, spec_of
from services.reward.oip.tensors import Values, raw_contents, read_values
from services.runtime.errors import InvalidRequest

_NOTHING = common.Content(text="")
"""The prompt of what is scored without one."""


@dataclass(frozen=True, slots=True)
class _Input:
    """Elements in row-major order, and how many there are of each item."""

    values: Values
    shape: tuple[int, ...]


def read_items(request: Any, tokenizer_digest: str, max_items: int) -> list[Item]:
    """The items of a request; one whose text or JSON is wrong is an error in its place.

    Args:
        request: A ModelInferRequest.
        tokenizer_digest: Of what made the ids; empty where the caller says nothing.
        max_items: Most that a request may hold.

    Raises:
        InvalidRequest: The inputs are not those of one of the three forms, or do not fit each other.
        TooLarge: There are too many items.
    """
    inputs = _inputs(request, max_items)
    read = _FORMS.get(frozenset(inputs))
    if read is None:
        found = " and ".join(inputs) or "none"
        raise InvalidRequest(f"the inputs are {found}; send PROMPT and RESPONSE, or MESSAGES, or {_IDS}")
    if bool(tokenizer_digest) != (read is _of_ids):
        raise InvalidRequest(
            f"{_IDS} and the parameter tokenizer_digest belong together: ids mean nothing without the tokenizer that "
            "made them; every reply has this model's digest among its parameters"
        )
    counts = {name: tensor.shape[0] for name, tensor in inputs.items()}
    if len(set(counts.values())) > 1:
        raise InvalidRequest(f"the inputs hold different numbers of items: {counts}")
    return list(read(inputs, tokenizer_digest))


def _inputs(request: Any, max_items: int) -> dict[str, _Input]:
    """By the names that they have here."""
    inputs: dict[str, _Input] = {}
    for tensor, raw in zip(request.inputs, raw_contents(request), strict=True):
        spec = spec_of(tensor.name, INPUTS, "input")
        if spec.name in inputs:
            raise InvalidRequest(f"the input {spec.name} is there twice")
        check_input(tensor, spec, max_items)
        inputs[spec.name] = _Input(read_values(tensor, raw), tuple(tensor.shape))
    return inputs


def _of_texts(inputs: Mapping[str, _Input], _: str) -> Iterable[Item]:
    for prompt, completion in zip(inputs["PROMPT"].values, inputs["RESPONSE"].values, strict=True):
        try:
            yield _text(prompt, "PROMPT"), _text(completion, "RESPONSE")
        except RenderingError as error:
            yield error


def _text(element: bytes, name: str) -> common.Content:
    return common.Content(text=_decoded(element, name))


def _decoded(element: bytes, name: str) -> str:
    try:
        return element.decode()
    except UnicodeDecodeError as error:
        raise RenderingError(f"{name} is not UTF-8") from error


def _of_messages(inputs: Mapping[str, _Input], _: str) -> Iterable[Item]:
    for element in inputs["MESSAGES"].values:
        try:
            yield _talk(_decoded(element, "MESSAGES"))
        except RenderingError as error:
            yield error


def _talk(document: str) -> Item:
    """The last message, which is the assistant's, is the completion; those before it are the prompt."""
    fields = [_fields(message) for message in _parsed(document)]
    try:
        messages = [common.ChatMessage(**texts) for texts in fields]
    except ValueError as error:  # protobuf's, of texts that are no Unicode
        raise RenderingError("MESSAGES holds a lone surrogate and is not valid Unicode; clean it") from error
    if not messages or messages[-1].role != "assistant":
        raise RenderingError("the last of MESSAGES must be the assistant's: it is what gets the score")
    *before, last = messages
    return (_conversation(before) if before else _NOTHING), _conversation([last])


def _conversation(messages: list[common.ChatMessage]) -> common.Content:
    return common.Content(conversation=common.Conversation(messages=messages))


def _parsed(document: str) -> list[Any]:
    try:
        parsed = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise RenderingError("MESSAGES is not JSON") from error
    if not isinstance(parsed, list):
        raise RenderingError("MESSAGES is JSON, but no list of messages")
    return parsed


def _fields(message: Any) -> dict[str, str]:
    if not (isinstance(message, dict) and message.keys() == {"role", "content"}):
        raise RenderingError("one of MESSAGES is no object of role and content alone; no more is taken into account")
    if not all(isinstance(value, str) for value in message.values()):
        raise RenderingError("role and content of MESSAGES must be strings")
    return message


def _of_ids(inputs: Mapping[str, _Input], tokenizer_digest: str) -> Iterable[Item]:
    rows = np.asarray(inputs["INPUT_IDS"].values).reshape(inputs["INPUT_IDS"].shape)
    width = rows.shape[1]
    for index, length in enumerate(np.asarray(inputs["SEQUENCE_LENGTH"].values).tolist()):
        if not 0 <= length <= width:
            raise InvalidRequest(f"SEQUENCE_LENGTH is {length} for item {index}; INPUT_IDS has {width} ids for each")
        ids = rows[index, :length].tolist()
        try:
            yield _NOTHING, common.Content(token_ids={"ids": ids, "tokenizer_digest": tokenizer_digest})
        except ValueError:
            yield RenderingError("INPUT_IDS has an id that no vocabulary has")


_IDS = "INPUT_IDS and SEQUENCE_LENGTH"

_FORMS: Mapping[frozenset[str], Callable[[Mapping[str, _Input], str], Iterable[Item]]] = {
    frozenset({"PROMPT", "RESPONSE"}): _of_texts,
    frozenset({"MESSAGES"}): _of_messages,
    frozenset({"INPUT_IDS", "SEQUENCE_LENGTH"}): _of_ids,
}
