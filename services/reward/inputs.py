"""Items as the contract carries them, turned into what the model reads; what is wrong with one stays its own error."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import TypeAlias

from palate.models.manifest import Truncation
from palate.models.rendering import Content, Rendered, Renderer, RenderingError
from palate.v1 import common_pb2 as common

SLICE = 64
"""Items that are rendered at a stretch: another request's turn comes after so many."""

_AT_ONCE_BYTES, _ITEM_BYTES = 4096, 256
"""So little text is read where it came in: that takes less time than handing it to another thread and back."""

Pair: TypeAlias = tuple[common.Content, common.Content]
"""(prompt, completion)."""

Item: TypeAlias = Pair | RenderingError
"""What is to be scored, or why it could not even be read."""


async def render_items(
    items: Sequence[Item], renderer: Renderer, truncation: Truncation, executor: Executor
) -> list[Rendered | RenderingError]:
    """What the model reads for every item, or why it cannot; long work runs in `executor`, off the event loop."""
    if sum(map(_bytes, items)) <= _AT_ONCE_BYTES:
        return render_slice(items, renderer, truncation)
    loop = asyncio.get_running_loop()
    rendered: list[Rendered | RenderingError] = []
    for begin in range(0, len(items), SLICE):
        part = items[begin : begin + SLICE]
        rendered += await loop.run_in_executor(executor, render_slice, part, renderer, truncation)
    return rendered


def render_slice(items: Sequence[Item], renderer: Renderer, truncation: Truncation) -> list[Rendered | RenderingError]:
    """`render_items` in the calling thread."""
    results: list[Rendered | RenderingError | None] = [None] * len(items)
    texts: dict[int, tuple[Content, Content]] = {}
    for index, item in enumerate(items):
        try:
            if isinstance(item, RenderingError):
                results[index] = item
            elif _has_ids(item):
                results[index] = _taken(item, renderer)
            else:
                texts[index] = (_content(item[0], "prompt"), _content(item[1], "completion"))
        except RenderingError as error:
            results[index] = error
    for index, result in zip(texts, renderer.render_pairs(list(texts.values()), truncation), strict=True):
        results[index] = result
    return [result for result in results if result is not None]


def _bytes(item: Item) -> int:
    """Bytes of text, and as many as an item's own overhead is worth."""
    return _ITEM_BYTES + (0 if isinstance(item, RenderingError) else sum(content.ByteSize() for content in item))


def _has_ids(pair: Pair) -> bool:
    return any(content.WhichOneof("form") == "token_ids" for content in pair)


def _taken(pair: Pair, renderer: Renderer) -> Rendered:
    prompt, completion = pair
    forms = [content.WhichOneof("form") for content in pair]
    if forms[1] != "token_ids" or not (forms[0] == "token_ids" or (forms[0] == "text" and not prompt.text)):
        raise RenderingError("token ids on one side only; give prompt and completion both as ids, or both as text")
    for content in pair:
        digest = content.token_ids.tokenizer_digest
        if content.WhichOneof("form") == "token_ids" and digest != renderer.tokenizer_digest:
            raise RenderingError(
                f"the token ids are of tokenizer {digest[:12] or '(no digest)'}, this model's is "
                f"{renderer.tokenizer_digest[:12]}; send text, or ids of that tokenizer with its whole digest"
            )
    return renderer.take_ids(prompt.token_ids.ids, completion.token_ids.ids)


def _content(content: common.Content, side: str) -> Content:
    form = content.WhichOneof("form")
    if form == "text":
        return content.text
    if form == "conversation":
        return [{"role": message.role, "content": message.content} for message in content.conversation.messages]
    raise RenderingError(f'the item has no {side}; where there is none send an empty text ("")')
