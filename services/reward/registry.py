"""The models of a server: chosen by name, exchanged while calls run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from services.reward.metrics import RewardMetrics
from services.reward.model import RewardModel
from services.reward.scoring import Scorer
from services.runtime.errors import NotFound, NotPossible

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Served:
    """A loaded model, what scores with it, and how many calls do so now."""

    model: RewardModel
    scorer: Scorer
    calls: int = 0


class Registry:
    """Names and their models. Belongs to one event loop; every change is one step of it, so no call sees half of one.

    Args:
        scorer_of: Makes what scores with a model.
        metrics: Told which models there are.
        max_models: Names that may be taken at once.
    """

    def __init__(self, scorer_of: Callable[[RewardModel], Scorer], metrics: RewardMetrics, max_models: int) -> None:
        self._scorer_of = scorer_of
        self._metrics = metrics
        self._max_models = max_models
        self._served: dict[str, Served] = {}
        self._retired: set[Served] = set()
        self._default = ""

    @property
    def default(self) -> str:
        """Name of the model that answers requests without one; the first that was put here, until another is chosen."""
        return self._default

    def models(self) -> list[RewardModel]:
        """All of them, by name."""
        return [self._served[name].model for name in sorted(self._served)]

    @contextmanager
    def using(self, name: str) -> Iterator[Served]:
        """The model of that name, "" = the default; it stays whole until the context ends, whatever is exchanged.

        Raises:
            NotFound: There is none; the message lists what there is.
        """
        served = self._named(name or self._default)
        served.calls += 1
        try:
            yield served
        finally:
            served.calls -= 1
            self._close_if_unused(served)

    def check_room(self, name: str) -> None:
        """Whether a model may get that name.

        Raises:
            NotPossible: It would be one too many.
        """
        if name not in self._served and len(self._served) >= self._max_models:
            raise NotPossible(f"{len(self._served)} models are loaded, the most (--max-models); unload one first")

    def put(self, model: RewardModel) -> RewardModel | None:
        """Serves a model by its name from now on; gives the one that had the name before.

        Raises:
            NotPossible: It is one too many.
        """
        self.check_room(model.name)
        before = self._served.get(model.name)
        self._served[model.name] = Served(model, self._scorer_of(model))
        self._default = self._default or model.name
        self._changed(before)
        return None if before is None else before.model

    def remove(self, name: str) -> RewardModel:
        """Serves the model no more.

        Raises:
            NotFound: There is none of that name.
            NotPossible: It is the default.
        """
        served = self._named(name)
        if name == self._default:
            raise NotPossible(f"{name!r} is the default model; make another one the default first")
        del self._served[name]
        self._changed(served)
        return served.model

    def set_default(self, name: str) -> str:
        """Chooses the model for requests without a name; gives the one chosen before.

        Raises:
            NotFound: There is none of that name.
        """
        self._named(name)
        before, self._default = self._default, name
        return before

    def close(self) -> None:
        """Frees all models, those too whose calls were cut."""
        for served in (*self._served.values(), *self._retired):
            self._close(served)

    def _named(self, name: str) -> Served:
        if name not in self._served:
            names = ", ".join(repr(known) for known in sorted(self._served))
            raise NotFound(f"there is no model {name[:100]!r} here; this server has {names}")
        return self._served[name]

    def _changed(self, gone: Served | None) -> None:
        self._metrics.serving(self.models())
        if gone is not None:
            self._retire(gone)

    def _retire(self, served: Served) -> None:
        self._retired.add(served)
        self._close_if_unused(served)

    def _close_if_unused(self, served: Served) -> None:
        if served in self._retired and not served.calls:
            self._retired.discard(served)
            self._close(served)

    def _close(self, served: Served) -> None:
        served.scorer.close()
        logger.info("model %s, revision %s: let go", served.model.name, served.model.digests.revision)
