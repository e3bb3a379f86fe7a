"""Short forward passes on a GPU as CUDA graphs: a shape's kernels are recorded once and then started all together."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from palate.models.classifier import MaskedClassifier

logger = logging.getLogger(__name__)

ALONE = threading.Lock()
"""Held while a pass is recorded or timed: beside a recording CUDA allows no other, and no waiting for the device."""

Compute = Callable[[], Tensor]
"""A pass over tensors that stay where they are."""

_MOST_GRAPHS = 256
"""Kept; a graph holds its kernels' arguments, and all share one pool of memory."""

_STEP = 32
"""Lengths are rounded up to multiples of it, or to eighths of a power of two, so that few shapes hold all rows."""


class RecordedPasses:
    """Calls a classifier; passes of at most `most_tokens` are filled up to a recorded shape.

    A row's padding depends on its own pass alone, so rows that are computed one by one keep their bits.

    Args:
        model: On the GPU.
        pad_id: What rows are filled up with.
        longest: Tokens that a row may have.
        most_tokens: Padded tokens (rows x length) of a recorded pass; a larger one is computed as it is.
        record: Runs a pass and gives what repeats it; `recorder` of a GPU.
    """

    def __init__(
        self,
        model: MaskedClassifier,
        pad_id: int,
        longest: int,
        most_tokens: int,
        record: Callable[[Compute], Compute],
    ) -> None:
        self._model = model
        self._pad_id = pad_id
        self._longest = longest
        self._most_tokens = most_tokens
        self._record = record
        self._passes: OrderedDict[tuple[int, int], _Pass] = OrderedDict()
        self._lock = threading.Lock()  # the tensors of a recorded pass are one caller's at a time

    def __call__(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """(B, labels) logits of (B, T) token ids, mask, and segments for models that have them."""
        given = [input_ids, attention_mask, *([] if token_type_ids is None else [token_type_ids])]
        rows, length = input_ids.shape
        shape = recorded_shape(rows, length, self._longest)
        if shape[0] * shape[1] > self._most_tokens:
            return self._model(*given)  # type: ignore[no-any-return]
        with self._lock:
            return self._at(shape, given).repeat(given)

    def _at(self, shape: tuple[int, int], given: Sequence[Tensor]) -> _Pass:
        if shape not in self._passes:
            self._passes[shape] = _Pass(self._model, shape, given, self._pad_id, self._record)
            if len(self._passes) > _MOST_GRAPHS:
                self._passes.popitem(last=False)
        self._passes.move_to_end(shape)
        return self._passes[shape]


class _Pass:
    """A recorded pass and the tensors that it reads."""

    def __init__(
        self,
        model: MaskedClassifier,
        shape: tuple[int, int],
        like: Sequence[Tensor],
        pad_id: int,
        record: Callable[[Compute], Compute],
    ) -> None:
        self._fillings = (pad_id, 0, 0)[: len(like)]
        self._read = [tensor.new_full(shape, filling) for tensor, filling in zip(like, self._fillings, strict=True)]
        self._read[1][:, 0] = 1  # a row without tokens has no last one to be read
        self._compute = record(lambda: model(*self._read))

    def repeat(self, given: Sequence[Tensor]) -> Tensor:
        rows, length = given[0].shape
        for read, tensor, filling in zip(self._read, given, self._fillings, strict=True):
            read.fill_(filling)
            read[:rows, :length] = tensor
        self._read[1][rows:, 0] = 1
        return self._compute()[:rows].clone()  # the next pass writes over it


def recorded_shape(rows: int, length: int, longest: int) -> tuple[int, int]:
    """(rows, tokens) of the smallest recorded shape that holds a batch: a power of two, and a rounded length.

    Args:
        rows: Of the batch, at least one.
        length: Of its longest row, at most `longest`.
        longest: Tokens that a row may have; no shape is longer, as a model may have no positions there.
    """
    step = max(_STEP, 1 << max(length.bit_length() - 4, 0))
    return 1 << (rows - 1).bit_length(), min(-(-length // step) * step, longest)


@torch.inference_mode()
def can_record(model: MaskedClassifier, given: Sequence[Tensor], record: Callable[[Compute], Compute]) -> bool:
    """Whether a model's passes can be recorded: not where the processor must look at results in between.

    Raises:
        torch.OutOfMemoryError: That says nothing of the model.
    """
    try:
        record(lambda: model(*given))
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        logger.warning("passes are started kernel by kernel, as they cannot be recorded: %s", error)
        return False
    return True


def recorder(device: torch.device) -> Callable[[Compute], Compute]:
    """Records passes on a GPU, all in one pool of memory, as none runs beside another."""
    pool = torch.cuda.graph_pool_handle()
    graphs: list[torch.cuda.CUDAGraph] = []  # the first, since a pool without graphs is gone for good

    def record(compute: Compute) -> Compute:
        with ALONE, torch.cuda.device(device):
            _warm_up(compute)
            graph = torch.cuda.CUDAGraph()
            # Other models' threads may allocate meanwhile.
            with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
                result = compute()
            if not graphs:
                graphs.append(graph)

        def repeat() -> Tensor:
            graph.replay()
            return result

        return repeat

    return record


def _warm_up(compute: Compute) -> None:
    """What libraries set up in a first pass must not be recorded."""
    aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        compute()
    torch.cuda.current_stream().wait_stream(aside)
