"""Prompts and completions as the contract carries them."""

from __future__ import annotations

from palate.client import checks
from palate.client import types as t
from palate.client.errors import InvalidInput
from palate.v1 import common_pb2 as common


def content_message(value: t.ContentLike, name: str) -> common.Content:
    """A prompt or completion.

    Args:
        value: Text, chat messages, or token ids.
        name: What to call it where it is wrong, e.g. "prompts[3]".

    Raises:
        InvalidInput: It is none of these, or holds what is no Unicode or no token id.
    """
    if isinstance(value, str):
        return common.Content(text=checks.text(value, name))
    if isinstance(value, t.TokenIds):
        digest = checks.text(value.tokenizer_digest, f"{name}.tokenizer_digest")
        ids = checks.ids(value.ids, f"{name}.ids")
        return common.Content(token_ids=common.TokenIds(ids=ids, tokenizer_digest=digest))
    if isinstance(value, (bytes, bytearray)):
        raise InvalidInput(f"{name} is bytes; give text, e.g. value.decode()")
    messages = checks.several(value, name, "Message, or a text, or TokenIds")
    spoken = [_message(message, f"{name}[{index}]") for index, message in enumerate(messages)]
    return common.Content(conversation=common.Conversation(messages=spoken))


def content_messages(values: object, name: str) -> list[common.Content]:
    """Prompts or completions, each called "name[index]" where it is wrong."""
    each = "texts, conversations or TokenIds"
    return [
        content_message(value, f"{name}[{index}]") for index, value in enumerate(checks.several(values, name, each))
    ]


def _message(value: object, name: str) -> common.ChatMessage:
    message = checks.instance(value, t.Message, name)
    return common.ChatMessage(
        role=checks.text(message.role, f"{name}.role"), content=checks.text(message.content, f"{name}.content")
    )
