"""Members into one score, against golden values and numpy."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.models.manifest import Calibration
from services.reward.calibration import Aggregate, Aggregation, aggregated, calibrated, spread

MEMBERS = (1.0, 2.0, 6.0)  # mean 3, variance (4 + 1 + 9) / 3
finite = st.floats(-1e6, 1e6, allow_subnormal=False)


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [
        (Aggregation(), 3.0),
        (Aggregation(Aggregate.MIN), 1.0),
        (Aggregation(Aggregate.MEAN_MINUS_VARIANCE, 0.5), 3.0 - 0.5 * 14 / 3),
        (Aggregation(Aggregate.MEAN_MINUS_VARIANCE, 0.0), 3.0),
    ],
)
def test_golden(aggregation: Aggregation, expected: float):
    assert aggregated(MEMBERS, aggregation) == pytest.approx(expected, abs=1e-12)
    assert spread(MEMBERS) == pytest.approx(math.sqrt(14 / 3))


@given(st.lists(finite, min_size=2, max_size=8), st.floats(0, 10))
def test_as_numpy(members: list[float], weight: float):
    pessimistic = aggregated(members, Aggregation(Aggregate.MEAN_MINUS_VARIANCE, weight))
    scale = max(1.0, np.var(members) * weight)
    assert pessimistic == pytest.approx(np.mean(members) - weight * np.var(members), abs=1e-9 * scale)
    assert spread(members) == pytest.approx(np.std(members), abs=1e-6)
    assert aggregated(members, Aggregation(Aggregate.MIN)) == min(members)


@given(finite)
def test_one_member_is_the_score_to_the_bit(score: float):
    assert aggregated((score,), Aggregation()) == score
    assert spread((score,)) is None


def test_calibrated():
    assert calibrated(5.0, Calibration(1.0, 2.0)) == 2.0
    assert calibrated(5.0, None) is None
