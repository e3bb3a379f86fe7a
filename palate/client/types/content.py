"""What both services take and tell: texts, and where the time went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class TokenIds:
    """Ids of the tokenizer with this digest (see `ModelInfo.tokenizer_digest`)."""

    ids: tuple[int, ...]
    tokenizer_digest: str


ContentLike: TypeAlias = str | Sequence[Message] | TokenIds
"""A prompt or a completion: text, chat messages, or token ids."""


@dataclass(frozen=True, slots=True)
class Timings:
    """Where a request's time went, in seconds."""

    queue_seconds: float
    tokenize_seconds: float
    compute_seconds: float
