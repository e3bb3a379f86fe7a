"""The text of a completion, and whether a stop text ends it."""

from __future__ import annotations

from collections.abc import Sequence

from palate.models.rendering import Renderer
from services.policy.engine import EndsText

_CONTEXT_TOKENS = 8


def completion_text(renderer: Renderer, prompt_ids: Sequence[int], token_ids: Sequence[int]) -> str:
    """What the completion adds to its prompt's text, without special tokens.

    Decoded after the prompt's last tokens: many tokenizers strip the space before a first word, and a completion that
    begins inside a sentence would lose it.
    """
    context = list(prompt_ids[-_CONTEXT_TOKENS:])
    before, whole = renderer.decode(context), renderer.decode([*context, *token_ids])
    return whole[len(before) :] if whole.startswith(before) else renderer.decode(token_ids)


def stop_rule(renderer: Renderer, prompts: Sequence[Sequence[int]], stop: Sequence[str]) -> EndsText | None:
    """Ends a row once its text holds one of the stop texts; None where there are none.

    Args:
        renderer: Decodes.
        prompts: Prompt ids of each row.
        stop: Texts that end a completion.
    """
    if not stop:
        return None

    def ends(row: int, token_ids: Sequence[int]) -> bool:
        text = completion_text(renderer, prompts[row], token_ids)
        return any(end in text for end in stop)

    return ends
