"""Advantages against published numbers, a naive loop, and the Monte Carlo identity."""

import pytest
import torch

from trainer.ppo.advantages import estimate_advantages
from trainer.types import length_mask

REWARDS = torch.tensor([[0.1, -0.2, 0.0, 1.5]])
VALUES = torch.tensor([[0.5, 0.4, 0.3, 0.2]])


@pytest.mark.parametrize(("lam", "expected"), [(0.95, [0.7393375, 0.77825, 1.135, 1.3]), (1.0, [0.9, 0.9, 1.2, 1.3])])
def test_golden_values(lam, expected):
    result = estimate_advantages(REWARDS, VALUES, torch.ones(1, 4, dtype=torch.bool), 1.0, lam)
    assert result.advantages[0].tolist() == pytest.approx(expected, abs=1e-6)
    torch.testing.assert_close(result.returns, result.advantages + VALUES)


def naive(rewards, values, length, gamma, lam, final):
    """One row, token by token, straight from the definition: A_t = sum over k of (γλ)^k δ_{t+k}."""
    values = [*values[:length], final]
    deltas = [rewards[t] + gamma * values[t + 1] - values[t] for t in range(length)]
    return [sum((gamma * lam) ** (k - t) * deltas[k] for k in range(t, length)) for t in range(length)]


@pytest.mark.parametrize("bootstrap", [False, True])
@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (1.0, 0.0)])
def test_ragged_rows_equal_the_definition(gamma, lam, bootstrap):
    generator = torch.Generator().manual_seed(1)
    lengths = [5, 1, 3, 2]
    mask = length_mask(lengths)
    rewards, values = torch.randn(2, 4, 5, generator=generator)
    final = torch.randn(4, generator=generator) if bootstrap else None
    spoiled = values.masked_fill(~mask, 50.0)
    result = estimate_advantages(rewards.masked_fill(~mask, 9.0), spoiled, mask, gamma, lam, final)
    for row, length in enumerate(lengths):
        last = 0.0 if final is None else final[row].item()
        expected = naive(rewards[row].tolist(), values[row].tolist(), length, gamma, lam, last)
        assert result.advantages[row, :length].tolist() == pytest.approx(expected, abs=1e-5)
        returns = [a + v for a, v in zip(expected, values[row].tolist(), strict=False)]
        assert result.returns[row, :length].tolist() == pytest.approx(returns, abs=1e-5)
    assert (result.advantages[~mask] == 0).all()
    assert (result.returns[~mask] == 0).all()


def test_with_lambda_one_returns_are_the_rewards_to_come():
    result = estimate_advantages(REWARDS, VALUES, torch.ones(1, 4, dtype=torch.bool), 1.0, 1.0)
    assert result.returns[0].tolist() == pytest.approx([1.4, 1.3, 1.5, 1.5], abs=1e-6)
