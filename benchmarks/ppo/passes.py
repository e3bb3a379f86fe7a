"""What a trainer gives its networks to do, counted the same way in whatever program they are transformers' Llamas."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass
from typing import Any

from torch import Tensor
from torch.nn.modules.module import register_module_forward_hook
from transformers import LlamaModel

_LOCK = threading.Lock()
"""Actor and critic may be computed side by side."""


@dataclass
class Passes:
    """How often sequences went through networks.

    Attributes:
        learnt_from: Forwards with gradients.
        backward: Backwards.
        looked_at: Forwards without gradients.
        drawn: Forwards of a single position, each for a token more.
    """

    learnt_from: int = 0
    backward: int = 0
    looked_at: int = 0
    drawn: int = 0

    def add(self, hidden: Tensor) -> None:
        """Counts a pass that ended in these (B, L, H) hidden states, and its backward when that comes."""
        rows, length, _ = hidden.shape
        with _LOCK:
            if length == 1:
                self.drawn += rows
            elif hidden.requires_grad:
                self.learnt_from += rows
                hidden.register_hook(self._came_back)
            else:
                self.looked_at += rows

    def per(self, steps: int) -> Passes:
        """Those of one step; a look at a model while it was loaded is no part of any."""
        return Passes(*(count // steps for count in astuple(self)))

    def __str__(self) -> str:
        return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in asdict(self).items())

    def _came_back(self, gradient: Tensor) -> None:
        with _LOCK:
            self.backward += len(gradient)


@contextmanager
def counted() -> Iterator[Passes]:
    """Counts the passes of every Llama in this process."""
    passes = Passes()

    def count(module: Any, arguments: Any, output: Any) -> None:
        if isinstance(module, LlamaModel):
            passes.add(output.last_hidden_state)

    handle = register_module_forward_hook(count)
    try:
        yield passes
    finally:
        handle.remove()
