"""Results that need no engine: those just being computed, and those computed lately."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, Generic, TypeAlias

from services.runtime.work import Item, Job, Result, Work

_Key: TypeAlias = tuple[Hashable, Hashable]


class InFlight(Generic[Item, Result]):
    """Jobs that wait or are being computed, so that equal work can join them.

    Args:
        enabled: False = every item is computed for itself.
    """

    def __init__(self, enabled: bool) -> None:
        self._enabled = enabled
        self._jobs: dict[_Key, Job[Item, Result]] = {}

    def find(self, work: Work[Item]) -> Job[Item, Result] | None:
        """The job that computes the same."""
        return self._jobs.get(_key(work))

    def add(self, job: Job[Item, Result]) -> None:
        """Others may join from now on."""
        if self._enabled:
            self._jobs[_key(job.work)] = job

    def remove(self, job: Job[Item, Result]) -> None:
        """Nobody may join any more."""
        if self._jobs.get(_key(job.work)) is job:
            del self._jobs[_key(job.work)]


class Cache(Generic[Result]):
    """Results by group and key; the one used longest ago makes room. Equal keys have equal results, to the bit.

    Args:
        max_items: How many are kept; 0 = none.
    """

    def __init__(self, max_items: int) -> None:
        self._max_items = max_items
        self._values: OrderedDict[_Key, Result] = OrderedDict()

    def find(self, work: Work[Any]) -> tuple[Result] | None:
        """The result in a tuple, so that it may be anything; None if it is not known."""
        key = _key(work)
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        return (self._values[key],)

    def put(self, work: Work[Any], value: Result) -> None:
        """Keeps a result."""
        self._values[_key(work)] = value
        self._values.move_to_end(_key(work))
        if len(self._values) > self._max_items:
            self._values.popitem(last=False)

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._values)


def _key(work: Work[Any]) -> _Key:
    return (work.group, work.key)
