import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.reward_model.losses import bradley_terry_loss, centring_penalty, vote_loss
from trainer.reward_model.reliability import meant


def naive_loss(a, b, p, m, epsilon):
    """The formula as it is written, one comparison at a time."""
    delta = a - b - m * (2 * p - 1)
    q = p * (1 - 2 * epsilon) + epsilon
    log_sigma = lambda z: -math.log1p(math.exp(-z)) if z > 0 else z - math.log1p(math.exp(z))  # noqa: E731
    return -q * log_sigma(delta) - (1 - q) * log_sigma(-delta)


def loss(a, b, p, m=0.0, epsilon=0.0):
    values = (torch.tensor([x], dtype=torch.float64) for x in (a, b, p))
    return bradley_terry_loss(*values, m, epsilon).item()


@pytest.mark.parametrize(
    ("arguments", "golden"),
    [
        ((1.0, 1.0, 1.0), 0.6931471806),  # ln 2
        ((1.5, 0.5, 1.0), 0.3132616875),  # ln(1 + e^-1)
        ((1.5, 0.5, 0.0), 1.3132616875),
        ((1.5, 0.5, 0.5), 0.8132616875),  # their mean
        ((1.5, 0.5, 1.0, 1.0), 0.6931471806),  # a margin of 1 uses the difference up
        ((1.5, 0.5, 0.5, 1.0), 0.8132616875),  # ties have no margin
        ((1.5, 0.5, 1.0, 0.0, 0.1), 0.4132616875),  # 0.9 · 0.3133 + 0.1 · 1.3133
        ((100.0, -100.0, 0.0), 200.0),  # no overflow
    ],
)
def test_golden_values(arguments, golden):
    assert loss(*arguments) == pytest.approx(golden, abs=1e-9)


scores = st.floats(-20, 20)


@given(scores, scores, st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 3), st.floats(0, 0.49))
def test_equals_the_formula(a, b, p, m, epsilon):
    assert loss(a, b, p, m, epsilon) == pytest.approx(naive_loss(a, b, p, m, epsilon), abs=1e-9)


@given(scores, scores, st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 3), st.floats(0, 0.49), st.floats(-5, 5))
def test_swapping_sides_or_shifting_scores_changes_nothing(a, b, p, m, epsilon, shift):
    assert loss(b, a, 1 - p, m, epsilon) == pytest.approx(loss(a, b, p, m, epsilon), abs=1e-9)
    assert loss(a + shift, b + shift, p, m, epsilon) == pytest.approx(loss(a, b, p, m, epsilon), abs=1e-7)


def test_smoothing_puts_the_minimum_where_the_noise_is():
    difference = torch.linspace(-5, 5, 2001, dtype=torch.float64)
    losses = bradley_terry_loss(difference, torch.zeros_like(difference), torch.ones_like(difference), 0.0, 0.2)
    assert torch.sigmoid(difference[losses.argmin()]).item() == pytest.approx(0.8, abs=1e-3)


def test_centring_penalty_is_the_square_of_the_sum():
    assert centring_penalty(torch.tensor([1.0, 2.0]), torch.tensor([3.0, -2.0])).tolist() == [16.0, 0.0]


def told(delta, preference, reliability):
    values = (torch.tensor([x], dtype=torch.float64) for x in (delta, preference, reliability))
    return vote_loss(*values).item()


@pytest.mark.parametrize(
    ("arguments", "golden"),
    [
        ((1.0, 1.0, 0.5), 0.6931471806),  # a coin tells nothing
        ((math.log(3.0), 1.0, 0.8), 0.4307829161),  # −ln(0.8 · ¾ + 0.2 · ¼)
        ((math.log(3.0), 0.0, 0.8), 1.0498221245),  # −ln 0.35
        ((math.log(3.0), 0.5, 0.8), 0.7403025203),  # their mean
        ((1000.0, 0.0, 0.9), 2.3025850930),  # no overflow: a vote against certainty costs −ln 0.1 at most
    ],
)
def test_golden_losses_of_votes(arguments, golden):
    assert told(*arguments) == pytest.approx(golden, abs=1e-9)


@given(st.floats(-20, 20), st.sampled_from([0.0, 0.5, 1.0]), st.floats(0.01, 0.99))
def test_votes_losses_equal_the_formula_and_turn_with_sides(delta, preference, reliability):
    sigma = 1 / (1 + math.exp(-delta))
    for_a = reliability * sigma + (1 - reliability) * (1 - sigma)
    expected = -preference * math.log(for_a) - (1 - preference) * math.log(1 - for_a)
    assert told(delta, preference, reliability) == pytest.approx(expected, abs=1e-6)
    assert told(-delta, 1 - preference, reliability) == pytest.approx(expected, abs=1e-6)
    assert told(-delta, preference, 1 - reliability) == pytest.approx(expected, abs=1e-6)


@given(st.floats(-8, 8), st.sampled_from([0.0, 0.5, 1.0]), st.floats(0.05, 0.95))
def test_a_votes_gradient_is_that_of_the_m_step(delta, preference, reliability):
    """Fisher's identity: descending the likelihood is descending Bradley–Terry on what the vote means."""
    difference = torch.tensor([delta], dtype=torch.float64, requires_grad=True)
    vote, eta = (torch.tensor([value], dtype=torch.float64) for value in (preference, reliability))
    vote_loss(difference, vote, eta).sum().backward()
    expected = torch.sigmoid(difference.detach()).item() - meant(np.array([delta]), vote.numpy(), eta.numpy())[0]
    assert difference.grad.item() == pytest.approx(expected, abs=1e-9)
