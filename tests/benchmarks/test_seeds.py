"""Rows over seeds: kept in a file, taken up again, and their means."""

import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.seeds import OtherSettings, keep_rows, kept_rows, mean_and_margin, told


@dataclass(frozen=True)
class Found:
    seed: int
    gain: float


def test_rows_are_taken_up_again_where_the_settings_are_the_same(tmp_path):
    file, settings = tmp_path / "new" / "out.json", {"steps": 3, "starts": (0.25, 4.0)}
    assert kept_rows(file, settings) == []
    keep_rows(file, settings, [Found(0, 1.5), Found(1, 0.5)])
    assert [Found(**row) for row in kept_rows(file, settings)] == [Found(0, 1.5), Found(1, 0.5)]
    assert [path.name for path in file.parent.iterdir()] == ["out.json"]
    with pytest.raises(OtherSettings, match="another --json"):
        kept_rows(file, settings | {"steps": 4})


def test_the_interval_is_students():
    mean, margin = mean_and_margin([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert margin == pytest.approx(2.919986 / math.sqrt(3), rel=1e-6)  # t(0.95, 2), from tables
    assert told([1.0, 2.0, 3.0]) == "2.00 ± 1.69"
    assert told([1.0]) == "1.00"


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=10), st.floats(-100, 100))
def test_what_all_seeds_share_moves_the_mean_alone(values, shift):
    mean, margin = mean_and_margin(values)
    moved, same = mean_and_margin([value + shift for value in values])
    assert moved == pytest.approx(mean + shift, abs=1e-9)
    assert same == pytest.approx(margin, abs=1e-6)
