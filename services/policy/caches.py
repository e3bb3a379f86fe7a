"""Keys and values of the rows of a batch: in slots, where rows come and go, or as the model's own cache has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer

_SPARE = 2
"""A window that is moved gets half as many slots and columns more, so that it moves seldom."""


def has_slots(config: Any) -> bool:
    """Whether a model keeps nothing of a row but keys and values of its tokens, so that `SlotCache` can hold them.

    Args:
        config: The model's; layers that share keys, that keep a recurrent state, or that attend within chunks counted
            from the first column do not qualify.
    """
    text = config.get_text_config(decoder=True)
    layers = {type(layer) for layer in DynamicCache(config=config).layers}
    return layers <= {DynamicLayer, DynamicSlidingWindowLayer} and getattr(text, "attention_chunk_size", None) is None


class _Layer(CacheLayerMixin):
    """Buffers of one layer, both (slots, heads, columns, head size); a step writes one column behind those in use."""

    is_sliding = False  # a sliding layer keeps all columns too, and the mask says which of them it reads
    keys: Tensor
    values: Tensor

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # transformers' own
        self.keys, self.values, self.is_initialized = keys, values, True
        self.show(0, 0, 0)

    def show(self, rows: int, begin: int, end: int) -> None:
        """Says which slots and columns are in use."""
        self._begin, self._end = begin, end
        self._used = self.keys[:rows], self.values[:rows]

    def written(self) -> None:
        """Counts the column that a step has written."""
        self._end += 1

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing: it was made with its buffers."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Writes a column, (rows, heads, 1, head size); gives all that are in use then."""
        keys, values = self._used
        keys.narrow(2, self._end, 1).copy_(key_states)
        values.narrow(2, self._end, 1).copy_(value_states)
        columns = self._end + 1 - self._begin
        return keys.narrow(2, self._begin, columns), values.narrow(2, self._begin, columns)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns that a query sees, and the first of them."""
        return self._end - self._begin + query_length, 0

    def get_seq_length(self) -> int:
        """Columns in use."""
        return self._end - self._begin

    def get_max_length(self) -> int:
        """None is known."""
        return -1


class RowCache(Protocol):
    """What rows have read; rows are counted in the order of their coming, all end at the same column."""

    @property
    def model_cache(self) -> Cache:
        """What a forward pass over one new token per row reads and writes."""
        ...

    @property
    def columns(self) -> int:
        """Columns in use, padding included."""
        ...

    def for_prefixes(self) -> DynamicCache:
        """What a forward pass over prefixes of new rows writes, for `insert`."""
        ...

    def insert(self, prefixes: DynamicCache, owner: Tensor, to_come: int) -> None:
        """Takes rows in behind the others.

        Args:
            prefixes: Keys and values of what the rows have read, padded on the left.
            owner: Which of the prefixes each row continues, (rows,); in the order of the rows that need them first.
            to_come: Columns that will be written while these rows are here, at most.
        """
        ...

    def keep(self, order: Sequence[int], columns: int) -> None:
        """Forgets all rows but these.

        Args:
            order: Which row is to stand in each of the first places; it stays, or comes from behind all of them.
            columns: How many the longest of them takes.
        """
        ...

    def make_room(self, to_come: int) -> None:
        """Sees to it that a column can be written; `to_come` may follow at most."""
        ...

    def written(self) -> None:
        """Says that a forward pass has written a column."""
        ...


class OwnCache:
    """The cache that transformers gives a model, for models whose rows have more than slots can hold.

    Rows come in once, into an empty cache.

    Args:
        config: The model's.
    """

    def __init__(self, config: Any) -> None:
        self._config = config
        self._cache = self.for_prefixes()
        self.columns = 0

    @property
    def model_cache(self) -> Cache:
        """What the rows came in with."""
        return self._cache

    def for_prefixes(self) -> DynamicCache:
        """A cache of the model's layers."""
        return DynamicCache(config=self._config)

    def insert(self, prefixes: DynamicCache, owner: Tensor, to_come: int) -> None:
        """Takes the prefixes over."""
        self._cache, self.columns = prefixes, prefixes.get_seq_length()
        prefixes.reorder_cache(owner)  # type: ignore[arg-type]  # any whole numbers will do

    def keep(self, order: Sequence[int], columns: int) -> None:
        """Copies what is kept."""
        self._cache.reorder_cache(torch.tensor(order))  # type: ignore[arg-type]

    def make_room(self, to_come: int) -> None:
        """Nothing: layers grow as they are written."""

    def written(self) -> None:
        """Counts the column."""
        self.columns += 1


class SlotCache(Cache):
    """Buffers with a slot for each row, written in place."""

    def __init__(self) -> None:
        super().__init__(layers=[])
        self._buffers: list[_Layer] = []
        self._rows = self._begin = self._end = 0  # slots 0 to `rows` and columns `begin` to `end` are in use

    @property
    def model_cache(self) -> Cache:
        """Itself."""
        return self

    @property
    def columns(self) -> int:
        """From the first that a row has written to the last."""
        return self._end - self._begin

    def for_prefixes(self) -> DynamicCache:
        """A cache that keeps all columns, also of layers that read the last ones only."""
        return DynamicCache()

    def written(self) -> None:
        """Counts the column."""
        self._end += 1
        for layer in self._buffers:
            layer.written()

    def insert(self, prefixes: DynamicCache, owner: Tensor, to_come: int) -> None:
        """Copies what the rows have read into free slots."""
        read = [(keys, values) for keys, values, _ in prefixes]
        length, rows = read[0][0].shape[2], self._rows + len(owner)
        if not self._rows:
            self._begin = self._end = length
        if not (self._buffers and self._fit(rows, length)):
            self._move(rows, length, to_come, read)
        taken = slice(self._rows, rows), slice(None), slice(self._end - length, self._end)
        own = len(owner) == len(read[0][0])  # a prefix for every row, in their order
        for layer, (keys, values) in zip(self._buffers, read, strict=True):
            layer.keys[taken] = keys if own else keys[owner]
            layer.values[taken] = values if own else values[owner]
        self._show(rows, min(self._begin, self._end - length))

    def keep(self, order: Sequence[int], columns: int) -> None:
        """Copies rows from behind into slots that fall free."""
        self._show(len(order), self._end - columns)
        moved = [(slot, row) for slot, row in enumerate(order) if slot != row]
        if not moved:
            return
        to, source = (list(slots) for slots in zip(*moved, strict=True))
        used = slice(self._begin, self._end)
        for layer in self._buffers:
            for buffer in (layer.keys, layer.values):
                buffer[to, :, used] = buffer[source, :, used]

    def make_room(self, to_come: int) -> None:
        """Moves to larger buffers where there is no column left."""
        if not self._fit(self._rows, self.columns):
            self._move(self._rows, self.columns, to_come, [(layer.keys, layer.values) for layer in self._buffers])

    def _show(self, rows: int, begin: int) -> None:
        self._rows, self._begin = rows, begin
        for layer in self._buffers:
            layer.show(rows, begin, self._end)

    def _fit(self, rows: int, length: int) -> bool:
        slots, _, columns, _ = self._buffers[0].keys.shape
        return rows <= slots and length <= self._end < columns

    def _move(self, rows: int, length: int, to_come: int, like: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Brings what is in use into fresh buffers with room for so many rows and for columns before and after the end.

        They begin as zeros: what no row has written is masked, yet must be a number, since nothing times NaN is NaN.

        Args:
            rows: That will be in use.
            length: Columns before the end that will be.
            to_come: Columns after it.
            like: Tensors of each layer, for heads, head size, number format and device.
        """
        used = self.columns
        end = max(used, length)
        slots, columns = rows, end + to_come
        if self._rows:  # rows come and go: not every one of them shall move the rest
            slots, columns = slots + slots // _SPARE, columns + columns // _SPARE
        fresh = [
            _Layer(*(of.new_zeros(slots, of.shape[1], columns, of.shape[3]) for of in tensors)) for tensors in like
        ]
        for new, old in zip(fresh, self._buffers, strict=False):  # at first there are no old ones
            new.keys[: self._rows, :, end - used : end] = old.keys[: self._rows, :, self._begin : self._end]
            new.values[: self._rows, :, end - used : end] = old.values[: self._rows, :, self._begin : self._end]
        self._buffers, self.layers = fresh, list(fresh)
        self._end = end
        self._show(self._rows, end - used)
