"""KL estimators, where their penalties pull, and the controllers, against published numbers and closed forms."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.ppo.kl import AdaptiveKL, FixedKL, k1, k2, k3, sequence_kl
from trainer.ppo.losses import aggregation_weights, policy_losses, weighted_sum
from trainer.types import length_mask


@pytest.mark.parametrize(
    ("logprob", "ref", "expected"), [(-1.0, -1.5, (0.5, 0.125, 0.10653)), (-1.5, -1.0, (-0.5, 0.125, 0.14872))]
)
def test_estimators_give_the_golden_values(logprob, ref, expected):
    arguments = torch.tensor(logprob), torch.tensor(ref)
    found = [estimator(*arguments).item() for estimator in (k1, k2, k3)]
    assert found == pytest.approx(expected, abs=5e-6)


def test_k1_and_k3_estimate_the_same_kl():
    generator = torch.Generator().manual_seed(0)
    logits, ref_logits = torch.randn(2, 20, generator=generator, dtype=torch.float64)
    p, q = logits.log_softmax(0), ref_logits.log_softmax(0)
    exact = (p.exp() * (p - q)).sum()
    drawn = torch.multinomial(p.exp(), 400_000, replacement=True, generator=generator)
    assert k1(p[drawn], q[drawn]).mean() == pytest.approx(exact.item(), rel=0.02)
    assert k3(p[drawn], q[drawn]).mean() == pytest.approx(exact.item(), rel=0.02)
    assert k3(p, q).min() >= 0


def test_sequence_kl_is_a_sum_over_real_tokens():
    mask = length_mask([1, 3])
    logprobs = torch.tensor([[-1.0, 9.0, 9.0], [-1.0, -2.0, -3.0]])
    ref = torch.tensor([[-1.5, -9.0, -9.0], [-2.0, -2.0, -2.5]])
    assert sequence_kl(logprobs, ref, mask).tolist() == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize(("kl", "expected"), [(6.0, 0.15), (12.0, 0.151536), (3.0, 0.148464)])
def test_adaptive_controller_gives_the_golden_values(kl, expected):
    assert AdaptiveKL(0.15, target=6, horizon=10_000).updated(kl, 512).kl_coef == pytest.approx(expected, abs=1e-12)


def test_adaptive_controller_settles_where_the_kl_meets_its_target():
    controller = AdaptiveKL(0.15, target=6, horizon=10_000)
    for _ in range(2000):
        controller = controller.updated(0.9 / controller.kl_coef, 512)
    assert controller.kl_coef == pytest.approx(0.15, rel=1e-3)
    stiff = AdaptiveKL(1.0, target=6, horizon=10_000)
    for _ in range(2000):
        stiff = stiff.updated(0.9 / stiff.kl_coef, 512)
    assert stiff.kl_coef == pytest.approx(0.15, rel=1e-3)


@given(kl=st.floats(-5, 1e4))
def test_without_a_gain_the_coefficient_is_the_published_one(kl):
    assert AdaptiveKL(0.15, target=6, horizon=10_000).coefficient(kl) == 0.15


@pytest.mark.parametrize(("kl", "times"), [(6.0, 1.0), (12.0, 4.0), (3.0, 0.25), (1e3, math.e**2), (-0.1, math.e**-2)])
def test_a_gain_multiplies_by_a_power_of_what_is_off_within_bounds(kl, times):
    controller = AdaptiveKL(0.15, target=6, horizon=10_000, gain=2)
    assert controller.coefficient(kl) == pytest.approx(0.15 * times)
    assert controller.updated(kl, 512) == replace(AdaptiveKL(0.15, 6, 10_000).updated(kl, 512), gain=2)


class SlowPolicy:
    """A policy pulled by a reward, ever more slowly: gradient ascent on a − kl_coef · KL / SPREAD with KL = a² / 2.

    At the coefficient `RIGHT` it settles at 6 nats; how long that takes is as on the stories of the examples.
    """

    RIGHT = 0.06
    _RATE, _SPREAD = 0.39, 0.208

    def __init__(self, steps):
        self.steps, self.done, self.a = steps, 0, 0.0

    def kl(self):
        return self.a**2 / 2

    def learn(self, kl_coef):
        rate = self._RATE * (1 - self.done / self.steps)
        self.a = max(self.a + rate * (1 - kl_coef * self.a / self._SPREAD), 0.0)
        self.done += 1


def last_quarter(times, gain, horizons, steps=64):
    """Mean KL of a run from a coefficient so many times too high, with so many horizons in it."""
    policy, seen = SlowPolicy(steps), []
    controller = AdaptiveKL(times * SlowPolicy.RIGHT, 6, 64 * steps / horizons, gain)
    for _ in range(steps):
        kl = policy.kl()
        seen.append(kl)
        policy.learn(controller.coefficient(kl))
        controller = controller.updated(kl, 64)
    return sum(seen[-steps // 4 :]) / (steps // 4)


@pytest.mark.parametrize("times", [0.25, 0.5, 1, 2, 4])
def test_a_gain_of_three_reaches_the_target_from_a_wrong_start_within_a_short_run(times):
    assert last_quarter(times, gain=3, horizons=40) == pytest.approx(6, rel=0.05)


@pytest.mark.parametrize("horizons", [10, 20, 30, 40, 60])
def test_without_a_gain_no_horizon_does_in_a_run_as_short(horizons):
    """Why there is one."""
    assert max(abs(last_quarter(times, 0, horizons) / 6 - 1) for times in (0.25, 4)) > 0.15


def test_fixed_controller_stays():
    assert FixedKL(0.1).updated(100.0, 64).kl_coef == FixedKL(0.1).coefficient(100.0) == 0.1


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("name", ["target", "horizon"])
def test_controller_refuses_what_it_would_divide_by(name, wrong):
    with pytest.raises(ValueError, match=name):
        AdaptiveKL(0.1, **{"target": 6.0, "horizon": 100.0, name: wrong})


COUNTS = [1, 2, 5]
"""How often each of three tokens stands in a batch that holds them exactly as often as the policy draws them."""

BETA = 0.3


def penalty_gradient(place):
    """Of the penalty with respect to the logits, over a batch in which a mean *is* the expectation under the policy."""
    logits = torch.tensor(COUNTS, dtype=torch.float64).log().requires_grad_()
    tokens = torch.tensor([token for token, count in enumerate(COUNTS) for _ in range(count)])
    new = logits.log_softmax(0)[tokens].unsqueeze(1)  # (8, 1)
    old, ref = new.detach(), REF[tokens].unsqueeze(1)
    mask = torch.ones(len(tokens), 1, dtype=torch.bool)
    if place == "reward_k1":
        token_losses = policy_losses(new, old, -BETA * k1(old, ref), mask, cliprange=0.2)
    else:
        token_losses = BETA * {"k1": k1, "k2": k2, "k3": k3}[place](new, ref)
    weighted_sum(token_losses, aggregation_weights(mask, "token_mean", 1)).backward()
    return logits.grad


REF = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).log()


def exact_gradient(divergence):
    logits = torch.tensor(COUNTS, dtype=torch.float64).log().requires_grad_()
    (BETA * divergence(logits.log_softmax(0))).backward()
    return logits.grad


def reverse_kl(policy):
    return (policy.exp() * (policy - REF)).sum()


def forward_kl(policy):
    return (REF.exp() * (REF - policy)).sum()


@pytest.mark.parametrize("place", ["reward_k1", "k2"])
def test_k1_in_the_reward_and_k2_in_the_loss_pull_along_the_kl(place):
    torch.testing.assert_close(penalty_gradient(place), exact_gradient(reverse_kl))


def test_k3_in_the_loss_pulls_along_another_divergence():
    """Its value estimates KL(π‖π_ref); its gradient is that of KL(π_ref‖π)."""
    torch.testing.assert_close(penalty_gradient("k3"), exact_gradient(forward_kl))
    assert (penalty_gradient("k3") - exact_gradient(reverse_kl)).norm() > 0.1 * exact_gradient(reverse_kl).norm()


def test_k1_in_the_loss_pulls_nowhere():
    """Why it is no option: the expectation of the score function is 0."""
    assert penalty_gradient("k1").norm() < 1e-12


def test_k2_and_k3_pull_alike_where_the_policy_is_close_to_the_reference():
    """For small differences both are ½ k1²."""
    new = (REF + torch.tensor([1e-3, -2e-3, 1e-3], dtype=torch.float64)).requires_grad_()
    gradients = [torch.autograd.grad(estimate(new, REF).sum(), new)[0] for estimate in (k2, k3)]
    torch.testing.assert_close(*gradients, rtol=2e-3, atol=0)
