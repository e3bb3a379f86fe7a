"""A prompt and its two completions as texts, also where a set of the hub has them as messages."""

from __future__ import annotations

from collections.abc import Sequence

from trainer.data.lines import MAX_LINE_BYTES, Row


def texts_of(row: Row, first: str, second: str) -> tuple[str, str, str]:
    """(prompt, one completion, the other); an absent prompt is "".

    A completion may be a list of {"role", "content"} messages that ends with the assistant's. What comes before that is
    the prompt and the same in both; where nothing does, the prompt stands under "prompt", as text or messages.

    Args:
        row: Has both completions.
        first: Key of one completion.
        second: Key of the other.

    Raises:
        DataError: They are neither, or the prompt is more than one message of a user.
    """
    (front, a), (other_front, b) = _completion(row, first), _completion(row, second)
    if front != other_front:
        row.refuse(f"{first!r} and {second!r} answer different conversations; both must begin with the same messages")
    return _prompt(row, front), a, b


def _completion(row: Row, key: str) -> tuple[list[dict[str, str]], str]:
    """(messages before it, its text)."""
    found = row.messages(key)
    if isinstance(found, str):
        return [], found
    if not found or found[-1]["role"] != "assistant":
        row.refuse(f"{key!r} must end with a message of the role 'assistant'; that is what is compared")
    if sum(len(message["content"]) for message in found) > MAX_LINE_BYTES:
        row.refuse(f"{key!r} is longer than {MAX_LINE_BYTES} characters; is this one conversation?")
    return found[:-1], found[-1]["content"]


def _prompt(row: Row, front: Sequence[dict[str, str]]) -> str:
    found = front or (row.messages("prompt") if "prompt" in row.values else "")
    if isinstance(found, str):
        return found
    if (roles := [message["role"] for message in found]) != ["user"]:
        row.refuse(
            f"the prompt is a conversation ({', '.join(roles)[:80]}); only answers to a single message of a user can "
            "be compared: take such rows out, or write the conversation as one text"
        )
    return found[0]["content"]
