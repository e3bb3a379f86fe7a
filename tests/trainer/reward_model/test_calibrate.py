import math
import statistics
from random import Random

import pytest

from trainer.data.lines import DataError
from trainer.reward_model.calibrate import calibration_of, fitted_logit_scale, sureness_of


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


def judged(rng, count, scale):
    """Differences, and votes drawn with the probability σ(scale · Δ)."""
    differences = [rng.gauss(0.0, 2.0) for _ in range(count)]
    return differences, [float(rng.random() < 1 / (1 + math.exp(-scale * d))) for d in differences]


def test_probabilities_that_are_true_have_a_small_calibration_error_whatever_the_scores_scale():
    differences, votes = judged(Random(2), 4000, 0.7)
    found = sureness_of(differences, votes, range(4000))
    assert found.error < 0.03
    assert sum(bin.count for bin in found.bins) == 4000
    assert all(0.5 <= bin.predicted <= 1.0 for bin in found.bins)
    larger = sureness_of([3.0 * d for d in differences], votes, range(4000))
    assert larger.error == pytest.approx(found.error, abs=1e-3)


def test_one_temperature_cannot_mend_what_is_sure_of_the_wrong_pairs():
    """Half of the pairs are always right and half are coins, and the model is as sure of both."""
    rng = Random(3)
    differences = [rng.choice((-1, 1)) * (4.0 if i % 4 < 2 else 0.5) for i in range(2000)]
    votes = [float(d > 0) if abs(d) == 0.5 else float(rng.random() < 0.5) for d in differences]
    assert sureness_of(differences, votes, range(2000)).error > 0.2


def naive_error(differences, votes, groups):
    """The definition, bin by bin: one group's temperature on the pairs of the other, and the other way round."""
    predicted, observed = [], []
    for own in (0, 1):
        others = [row for row, group in enumerate(groups) if group != own]
        scale = fitted_logit_scale([differences[row] for row in others], [votes[row] for row in others])
        for row, group in enumerate(groups):
            if group == own:
                chance = 1 / (1 + math.exp(-scale * differences[row]))
                predicted.append(max(chance, 1 - chance))
                observed.append(votes[row] if chance >= 0.5 else 1 - votes[row])
    total, counts = 0.0, []
    for low in range(50, 100, 5):
        inside = [row for row, p in enumerate(predicted) if low <= 100 * p < low + 5]
        if inside:
            counts.append(len(inside))
            total += abs(sum(predicted[row] for row in inside) - sum(observed[row] for row in inside))
    return total / len(predicted), counts


@pytest.mark.parametrize("seed", range(4))
def test_the_error_is_that_of_a_naive_twin_and_sides_do_not_matter(seed):
    differences, votes = judged(Random(seed), 300, 1.0)
    groups = [row % 2 for row in range(300)]
    found = sureness_of(differences, votes, groups)
    error, counts = naive_error(differences, votes, groups)
    assert found.error == pytest.approx(error, abs=1e-9)
    assert [bin.count for bin in found.bins] == counts
    turned = sureness_of([-d for d in differences], [1 - v for v in votes], groups)
    assert turned.error == pytest.approx(found.error, abs=1e-6)


def test_no_group_is_on_both_sides_of_the_temperature():
    """Two groups that want other temperatures: halves of rows would both know both."""
    rng, differences, votes, groups = Random(5), [], [], []
    for group, scale in enumerate((0.2, 5.0)):
        found = judged(rng, 1000, scale)
        differences, votes = differences + found[0], votes + found[1]
        groups += [group] * 1000
    by_group, by_row = sureness_of(differences, votes, groups), sureness_of(differences, votes, [0] * 2000)
    assert (by_group.split, by_row.split) == ("groups", "rows")
    assert by_group.error > by_row.error + 0.02


def test_a_group_beside_one_that_holds_nearly_all_is_no_half():
    differences, votes = judged(Random(6), 1000, 1.0)
    found = sureness_of(differences, votes, ["large"] * 990 + ["small"] * 10)
    assert found == sureness_of(differences, votes, ["large"] * 1000)
    assert found.split == "rows"


def test_too_few_pairs_have_no_calibration_error():
    assert sureness_of([1.0], [1.0], ["group"]) is None
