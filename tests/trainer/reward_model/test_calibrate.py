import math
import statistics
from random import Random

import pytest

from trainer.data.lines import DataError
from trainer.reward_model.calibrate import calibration_of, fitted_logit_scale


def test_calibrated_reference_scores_have_mean_0_and_deviation_1():
    rng = Random(0)
    scores = [rng.gauss(3.0, 0.4) for _ in range(300)]
    found = calibration_of(scores)
    calibrated = [(score - found.mean) / found.std for score in scores]
    assert abs(statistics.fmean(calibrated)) < 1e-9
    assert statistics.pstdev(calibrated) == pytest.approx(1.0, abs=1e-9)


def test_equal_scores_cannot_be_calibrated():
    with pytest.raises(DataError, match="learnt nothing"):
        calibration_of([0.25] * 5)


@pytest.mark.parametrize("scale", [0.2, 1.0, 6.0])
def test_the_logit_scale_that_made_the_labels_is_found_again(scale):
    rng = Random(1)
    differences = [rng.gauss(0.0, 1.5) for _ in range(20_000)]
    labels = [float(rng.random() < 1 / (1 + math.exp(-scale * difference))) for difference in differences]
    assert fitted_logit_scale(differences, labels) == pytest.approx(scale, rel=0.08)


def test_expected_labels_give_the_scale_exactly():
    differences = [-2.0, -0.5, 0.1, 1.0, 3.0]
    expected = [1 / (1 + math.exp(-0.7 * difference)) for difference in differences]
    assert fitted_logit_scale(differences, expected) == pytest.approx(0.7, rel=1e-3)


def test_a_model_that_is_always_right_gets_a_finite_scale():
    assert 1.0 < fitted_logit_scale([1.0, -1.0], [1.0, 0.0]) <= math.exp(6)
