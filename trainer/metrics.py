"""Training curves, written three ways from the same numbers: a JSONL file, TensorBoard and Prometheus."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from ctypes import c_float
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from trainer.errors import NoNumber, failure_of
from trainer.exposure import Exposure, MetricsPort, Vitals
from trainer.metric_names import find

FILE_NAME = "metrics.jsonl"


class MetricsWriter:
    """Writes metrics of a run.

    Args:
        out_dir: Gets metrics.jsonl and tensorboard/.
        exposure: Where Prometheus can read the newest values.
        resume_step: The last step that counts: later rows of an earlier start are taken out. None = a new run.
        vitals: Shown beside the rows.
    """

    def __init__(
        self,
        out_dir: Path | str,
        exposure: Exposure = Exposure(),
        resume_step: int | None = None,
        vitals: Vitals | None = None,
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        self._newest = NewestRow()
        self._vitals = vitals or Vitals()
        self._vitals.registry.register(self._newest)
        self._port = None if exposure.port is None else MetricsPort(exposure, self._vitals.registry)
        folder = Path(out_dir)
        folder.mkdir(parents=True, exist_ok=True)
        if resume_step is not None:
            drop_later_steps(folder / FILE_NAME, resume_step)
        self._file = (folder / FILE_NAME).open("a", encoding="utf-8", buffering=1)
        purge = None if resume_step is None else resume_step + 1
        self._tensorboard: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=purge)

    def log(self, step: int, metrics: Mapping[str, float]) -> dict[str, float]:
        """Writes one row, rounded to float32: TensorBoard holds no more, and all three shall hold the same.

        Args:
            step: Which step the numbers belong to.
            metrics: Names of `trainer.metric_names` to numbers; a name is missing where there is no number.

        Raises:
            NoNumber: A number is infinite (as float32) or not a number.
            ValueError: No metric has the name.

        Returns:
            The numbers as they were written.
        """
        row = {name: rounded(value) for name, value in metrics.items()}
        if broken := [name for name, value in row.items() if not math.isfinite(value)]:
            raise NoNumber(f"step {step}: {', '.join(broken)} is not finite; leave a metric out where it has no value")
        self._newest.show(step, row)
        self._vitals.step_done()
        self._file.write(json.dumps({"step": step, "time": time.time(), **row}) + "\n")
        for name, value in row.items():
            self._tensorboard.add_scalar(name, value, step)
        self._tensorboard.flush()
        return row

    def log_text(self, step: int, name: str, markdown: str) -> None:
        """Shows a text of a step in TensorBoard."""
        self._tensorboard.add_text(name, markdown, step)
        self._tensorboard.flush()

    def close(self) -> None:
        """Ends all three."""
        self._file.close()
        self._tensorboard.close()
        if self._port is not None:
            self._port.close()
            self._port = None

    @property
    def prometheus_port(self) -> int | None:
        """Where /metrics is; None where it is nowhere."""
        return None if self._port is None else self._port.port

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._vitals.failed(failure_of(error))
        self.close()


class NewestRow(Collector):
    """What Prometheus reads: the numbers of the newest row, all of the same step.

    A number that the newest row lacks is gone, and not what it was some steps ago. Only where a row says nothing at all
    of a family (what stands before the "/") does that stay: held-out losses have rows of their own.
    """

    def __init__(self) -> None:
        self._shown: tuple[int, Mapping[str, float]] = (0, {})

    def show(self, step: int, metrics: Mapping[str, float]) -> None:
        """Takes a row.

        Raises:
            ValueError: No metric has one of the names.
        """
        for name in metrics:
            find(name)
        told = {_family(name) for name in metrics}
        kept = {name: value for name, value in self._shown[1].items() if _family(name) not in told}
        self._shown = step, {**kept, **metrics}  # in one move: a scrape may come at any time

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The row, as the exposition needs it."""
        step, row = self._shown
        yield GaugeMetricFamily("palate_training_step", "Steps that are done.", value=step)
        families: dict[str, GaugeMetricFamily] = {}
        for name, value in row.items():
            metric, thing = find(name)
            labels = [metric.label] if metric.label else []
            family = GaugeMetricFamily(metric.prometheus, metric.text, labels=labels)
            families.setdefault(metric.name, family).add_metric([thing] if thing else [], value)
        yield from families.values()


def rounded(value: float) -> float:
    """The nearest float32; infinite where there is none."""
    return c_float(value).value


def _family(name: str) -> str:
    return name.partition("/")[0]


def read_metrics(out_dir: Path | str) -> list[dict[str, float]]:
    """The rows of a run's metrics.jsonl, oldest first."""
    return list(read_whole_rows(Path(out_dir) / FILE_NAME))


def read_whole_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSONL file, without a last one that is still being written or was cut off by a kill."""
    with path.open(encoding="utf-8") as lines:
        yield from (json.loads(line) for line in lines if line.endswith("\n"))


def drop_later_steps(path: Path, last_step: int) -> None:
    """Takes rows of steps after `last_step` out of a JSONL file, and a last line that was cut off by a kill."""
    if not path.exists():
        return
    draft = path.with_suffix(".draft")
    with path.open(encoding="utf-8") as source, draft.open("w", encoding="utf-8") as target:
        for line in source:
            if line.endswith("\n") and json.loads(line)["step"] <= last_step:
                target.write(line)
    draft.replace(path)
