"""Training curves, written three ways from the same numbers: a JSONL file, TensorBoard and Prometheus."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from prometheus_client import CollectorRegistry, Gauge, start_http_server

FILE_NAME = "metrics.jsonl"


class MetricsWriter:
    """Writes metrics of a run.

    Args:
        out_dir: Gets metrics.jsonl and tensorboard/.
        prometheus_port: Where Prometheus can read the newest values, on this machine only; 0 = any free port, None =
            nowhere.
        resume_step: The last step that counts: later rows of an earlier start are taken out. None = a new run.
    """

    def __init__(self, out_dir: Path | str, prometheus_port: int | None = None, resume_step: int | None = None) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        folder = Path(out_dir)
        folder.mkdir(parents=True, exist_ok=True)
        if resume_step is not None:
            drop_later_steps(folder / FILE_NAME, resume_step)
        self._file = (folder / FILE_NAME).open("a", encoding="utf-8", buffering=1)
        purge = None if resume_step is None else resume_step + 1
        self._tensorboard: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=purge)
        self._registry = CollectorRegistry()
        self._gauges: dict[str, Gauge] = {}
        self.prometheus_port: int | None = None
        self._server: Any = None
        if prometheus_port is not None:
            self._server, self._thread = start_http_server(prometheus_port, addr="127.0.0.1", registry=self._registry)
            self.prometheus_port = self._server.server_port

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes one row.

        Args:
            step: Which step the numbers belong to.
            metrics: Names like "objective/kl" to numbers; a name is missing where there is no number.

        Raises:
            ValueError: A number is infinite or not a number.
        """
        if broken := [name for name, value in metrics.items() if not math.isfinite(value)]:
            raise ValueError(
                f"step {step}: {', '.join(broken)} is not finite; leave a metric out where it has no value"
            )
        self._file.write(json.dumps({"step": step, "time": time.time(), **metrics}) + "\n")
        for name, value in {"step": float(step), **metrics}.items():
            self._tensorboard.add_scalar(name, value, step)
            self._gauge(name).set(value)
        self._tensorboard.flush()

    def close(self) -> None:
        """Ends all three."""
        self._file.close()
        self._tensorboard.close()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _gauge(self, name: str) -> Gauge:
        if name not in self._gauges:
            self._gauges[name] = Gauge(prometheus_name(name), f"Training metric {name}.", registry=self._registry)
        return self._gauges[name]


def prometheus_name(name: str) -> str:
    """E.g. "objective/kl" → "palate_training_objective_kl"; times, which are in seconds, say so."""
    unit = "_seconds" if name.startswith("time/") else ""
    return "palate_training_" + re.sub(r"[^a-zA-Z0-9]+", "_", name) + unit


def read_metrics(out_dir: Path | str) -> list[dict[str, float]]:
    """The rows of a run's metrics.jsonl, oldest first."""
    with (Path(out_dir) / FILE_NAME).open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


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
