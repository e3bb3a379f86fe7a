"""What an audit found as gauges in a file, for the textfile collector of Prometheus' node exporter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Protocol

import typer
from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

from palate.file_errors import cause_of

_SUFFIX = ".prom"


class HasInterval(Protocol):
    """A value with the ends of its interval."""

    @property
    def value(self) -> float:
        """It."""

    @property
    def low(self) -> float:
        """The interval's lower end."""

    @property
    def high(self) -> float:
        """Its upper end."""


class WithInterval:
    """Three gauges: a value, and under `_low` and `_high` the ends of its interval."""

    def __init__(self, registry: CollectorRegistry, name: str, text: str, labels: tuple[str, ...]) -> None:
        self._value = Gauge(name, text, labels, registry=registry)
        self._low = Gauge(f"{name}_low", f"Lower end of the 95 % interval of {name}.", labels, registry=registry)
        self._high = Gauge(f"{name}_high", f"Upper end of the 95 % interval of {name}.", labels, registry=registry)

    def set(self, found: HasInterval | None, *labels: str) -> None:
        """Makes the series, or none where there is no value: a missing one is never 0."""
        if found is not None:
            self._value.labels(*labels).set(found.value)
            self._low.labels(*labels).set(found.low)
            self._high.labels(*labels).set(found.high)


def _usable(file: Path | None) -> Path | None:
    """Refuses, before anything is asked, what the collector would not read or nobody could write."""
    if file is not None and file.suffix != _SUFFIX:
        raise typer.BadParameter(f"the textfile collector reads files that end in {_SUFFIX}; this is {file.name}")
    if file is not None and not file.absolute().parent.is_dir():
        raise typer.BadParameter(f"the folder {file.absolute().parent} does not exist; give the collector's")
    return file


MetricsFile = Annotated[
    Path | None,
    typer.Option(
        "--metrics",
        metavar="FILE",
        callback=_usable,
        help="Where to write the result for Prometheus, .prom, in the folder of node exporter's textfile collector.",
    ),
]


def write_metrics(file: Path | None, fill: Callable[[CollectorRegistry], None]) -> None:
    """Writes, in one move, what `fill` puts into a registry, where a file is asked for.

    Raises:
        typer.BadParameter: The file cannot be written.
    """
    if file is None:
        return
    registry = CollectorRegistry()
    fill(registry)
    try:
        write_to_textfile(str(file), registry)
    except OSError as error:
        raise typer.BadParameter(f"--metrics {file} cannot be written: {cause_of(error)}") from error
