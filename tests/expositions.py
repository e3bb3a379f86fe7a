"""What a file for a textfile collector says: by the client library's parser, and promtool where it is."""

import shutil
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.checks.prometheus import lint

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def series_of(file: Path) -> Series:
    """(name, labels) → value."""
    text = file.read_text()
    assert not shutil.which("promtool") or lint(text) == ""
    families = text_string_to_metric_families(text)
    return {(each.name, frozenset(each.labels.items())): each.value for family in families for each in family.samples}


def value(series: Series, name: str, **labels: str) -> float:
    return series[name, frozenset(labels.items())]
