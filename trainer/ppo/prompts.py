"""Which prompt stands where: their order, and the seed of every place in a batch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from palate.models.rendering import Renderer, RenderingError
from trainer.ppo.errors import PromptsUnusable
from trainer.types import PromptDraw


def derive_seed(*parts: object) -> int:
    """A seed in [0, 2⁶³) for what `parts` name; another part, another seed."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class PromptSource:
    """All prompts, in an order that is drawn anew for each pass. A position says where in it a run is.

    Args:
        texts: The prompts.
        renderer: Of the policy.
        max_prompt_tokens: The most that leaves room for a completion.
        seed: Of the run.

    Raises:
        PromptsUnusable: A prompt cannot be rendered, or is too long.
    """

    def __init__(self, texts: Sequence[str], renderer: Renderer, max_prompt_tokens: int, seed: int) -> None:
        self._texts = tuple(texts)
        self._ids = _render(texts, renderer)
        self._seed = seed
        self._order: tuple[int, list[int]] = (-1, [])
        too_long = [index for index, ids in enumerate(self._ids) if len(ids) > max_prompt_tokens]
        if too_long:
            raise PromptsUnusable(
                f"{len(too_long)} of {len(texts)} prompts have more than {max_prompt_tokens} tokens (the first is "
                f"number {too_long[0] + 1}), which leaves no room for a completion: shorten them, or lower "
                "--sampling.max-new-tokens"
            )

    def draw(self, stream: str, position: int, prompts: Sequence[int], first_place: int = 0) -> list[PromptDraw]:
        """Prompts for some places of a batch.

        Args:
            stream: What they are drawn for, e.g. the step; part of the seeds.
            position: Where in the order the batch begins, counted over all passes.
            prompts: Which one each place gets, counted from there; several places may get the same.
            first_place: Number of the first place in the batch; part of the seeds, so every place has its own.
        """
        indices = [self._index(position + prompt) for prompt in prompts]
        return [
            PromptDraw(self._texts[index], self._ids[index], derive_seed(self._seed, stream, place))
            for place, index in enumerate(indices, first_place)
        ]

    def _index(self, position: int) -> int:
        epoch, offset = divmod(position, len(self._texts))
        if self._order[0] != epoch:
            generator = torch.Generator().manual_seed(derive_seed(self._seed, "order", epoch))
            self._order = (epoch, torch.randperm(len(self._texts), generator=generator).tolist())
        return self._order[1][offset]


def _render(texts: Sequence[str], renderer: Renderer) -> list[tuple[int, ...]]:
    try:
        return [tuple(ids) for ids in renderer.render_prompts(texts)]
    except RenderingError as error:
        raise PromptsUnusable(f"a prompt cannot be rendered for the policy: {error}") from error
