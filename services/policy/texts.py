"""The text of a completion, whole or as it grows, and whether a stop text ends it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

from palate.models.rendering import Renderer

EndsText: TypeAlias = Callable[[Sequence[int]], bool]
"""Whether a completion has ended, judging by the tokens drawn so far."""

_CONTEXT_TOKENS = 8

_BYTE_TOKEN = re.compile("<0x[0-9A-F]{2}>")
"""How vocabularies with byte fallback write a single byte."""

_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
"""What decoders make of bytes that are no character, or not yet one."""


def completion_text(renderer: Renderer, prompt_ids: Sequence[int], token_ids: Sequence[int]) -> str:
    """What the completion adds to its prompt's text, without special tokens.

    Decoded after the prompt's last tokens: many tokenizers strip the space before a first word, and a completion that
    begins inside a sentence would lose it.
    """
    return _added_text(renderer, prompt_ids[-_CONTEXT_TOKENS:], token_ids)


class GrowingText:
    """The text of a completion while its tokens come; its parts, joined, are `completion_text` of all tokens.

    A part is given once later tokens cannot change it: bytes that are not yet a character wait for those that follow,
    and so does a run of byte tokens, which decoders read as a whole.

    Args:
        renderer: Decodes.
        prompt_ids: What the completion continues.
    """

    def __init__(self, renderer: Renderer, prompt_ids: Sequence[int]) -> None:
        self._renderer = renderer
        self._context = list(prompt_ids[-_CONTEXT_TOKENS:])  # tokens with text, so that no decoder sees a beginning
        self._fresh: list[int] = []  # tokens whose text was not given yet

    def add(self, token_ids: Sequence[int], last: bool) -> str:
        """The text that is complete with these tokens; what is left of it with the last ones."""
        self._fresh.extend(token_ids)
        text = _added_text(self._renderer, self._context, self._fresh)
        if not last and (not text or text.endswith(_INCOMPLETE) or self._in_byte_run()):
            return ""
        self._context, self._fresh = self._fresh, []
        return text

    def _in_byte_run(self) -> bool:
        """Whether the last token with a text is a byte; decoders do not see special tokens between bytes."""
        seen = next((token for token in reversed(self._fresh) if self._renderer.decode([token])), self._fresh[-1])
        return bool(_BYTE_TOKEN.fullmatch(self._renderer.tokens([seen])[0]))


def _added_text(renderer: Renderer, context: Sequence[int], token_ids: Sequence[int]) -> str:
    """What the ids add to the context's text; their own text where the two meet inside a character."""
    before, whole = renderer.decode(context), renderer.decode([*context, *token_ids])
    return whole[len(before) :] if whole.startswith(before) else renderer.decode(token_ids)


def stop_rule(renderer: Renderer, prompt_ids: Sequence[int], stop: Sequence[str]) -> EndsText | None:
    """Ends a completion once its text holds one of the stop texts; None where there are none.

    Args:
        renderer: Decodes.
        prompt_ids: What the completion continues.
        stop: Texts that end it.
    """
    if not stop:
        return None

    def ends(token_ids: Sequence[int]) -> bool:
        text = completion_text(renderer, prompt_ids, token_ids)
        return any(end in text for end in stop)

    return ends
