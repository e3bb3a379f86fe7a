"""What TensorBoard, Prometheus and the HTML page hold of a run, read as anybody would read them."""

import json
import re
import urllib.request
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray


def tensorboard_scalars(run: Path) -> dict[str, dict[int, float]]:
    """Name → step → value."""
    board = _board(run)
    return {name: {event.step: event.value for event in board.Scalars(name)} for name in board.Tags()["scalars"]}


def tensorboard_texts(run: Path) -> dict[str, dict[int, str]]:
    """Name → step → Markdown."""
    board = _board(run)
    return {
        name.removesuffix("/text_summary"): {
            event.step: make_ndarray(event.tensor_proto).item().decode() for event in board.Tensors(name)
        }
        for name in board.PluginTagToContent("text")
    }


def _board(run: Path) -> EventAccumulator:
    board = EventAccumulator(str(run / "tensorboard"), size_guidance={"tensors": 0, "scalars": 0})
    board.Reload()
    return board


_VITALS = ("palate_training_step_timestamp_seconds", "palate_training_failed", "palate_training_publications_")


def row_of(exposed: dict[tuple[str, tuple[str, ...]], float]) -> dict[tuple[str, tuple[str, ...]], float]:
    """The numbers of the newest row, without what is shown beside it."""
    return {series: value for series, value in exposed.items() if not series[0].startswith(_VITALS)}


def scraped(port: int) -> dict[tuple[str, tuple[str, ...]], float]:
    """(name, values of its labels) → value, of a process on this machine."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as reply:
        families = text_string_to_metric_families(reply.read().decode())
        return {(s.name, tuple(s.labels.values())): s.value for family in families for s in family.samples}


def embedded(page: Path, name: str) -> Any:
    """The JSON that a page holds under a name."""
    (held,) = re.findall(rf'<script type="application/json" id="{name}">(.*?)</script>', page.read_text("utf-8"), re.S)
    return json.loads(held)
