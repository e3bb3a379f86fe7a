"""Every estimator against published numbers, a naive loop, and what it is known to be equal to."""

import pytest
import torch

from trainer.ppo.advantages import GAE, GRPO, RLOO, Episodes, ReinforcePP, generalised_advantages
from trainer.ppo.masked import masked_whiten
from trainer.types import CriticValues, length_mask

REWARDS = torch.tensor([[0.1, -0.2, 0.0, 1.5]])
VALUES = torch.tensor([[0.5, 0.4, 0.3, 0.2]])


@pytest.mark.parametrize(("lam", "expected"), [(0.95, [0.7393375, 0.77825, 1.135, 1.3]), (1.0, [0.9, 0.9, 1.2, 1.3])])
def test_golden_values(lam, expected):
    result = generalised_advantages(REWARDS, VALUES, torch.ones(1, 4, dtype=torch.bool), 1.0, lam)
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
    result = generalised_advantages(rewards.masked_fill(~mask, 9.0), spoiled, mask, gamma, lam, final)
    for row, length in enumerate(lengths):
        last = 0.0 if final is None else final[row].item()
        expected = naive(rewards[row].tolist(), values[row].tolist(), length, gamma, lam, last)
        assert result.advantages[row, :length].tolist() == pytest.approx(expected, abs=1e-5)
        returns = [a + v for a, v in zip(expected, values[row].tolist(), strict=False)]
        assert result.returns[row, :length].tolist() == pytest.approx(returns, abs=1e-5)
    assert (result.advantages[~mask] == 0).all()
    assert (result.returns[~mask] == 0).all()


def test_with_lambda_one_returns_are_the_rewards_to_come():
    result = generalised_advantages(REWARDS, VALUES, torch.ones(1, 4, dtype=torch.bool), 1.0, 1.0)
    assert result.returns[0].tolist() == pytest.approx([1.4, 1.3, 1.5, 1.5], abs=1e-6)


LENGTHS = (5, 1, 3, 2, 4, 4)


def episodes(seed=0, critic=None):
    generator = torch.Generator().manual_seed(seed)
    mask = length_mask(LENGTHS)
    rewards = torch.where(mask, torch.randn(mask.shape, generator=generator), 0)
    return Episodes(rewards, mask, torch.tensor([True, False] * 3), critic)


def rows_of(tensor):
    return [row[:length] for row, length in zip(tensor.tolist(), LENGTHS, strict=True)]


def groups(size):
    """Rewards of whole completions, group by group, added up one by one."""
    totals = [sum(row) for row in rows_of(episodes().rewards)]
    return [totals[start : start + size] for start in range(0, len(totals), size)]


def spread(rewards, unbiased):
    mean = sum(rewards) / len(rewards)
    return (sum((r - mean) ** 2 for r in rewards) / (len(rewards) - unbiased)) ** 0.5


def check_rows(found, expected):
    """One advantage for all tokens of a completion, none at padding, no returns."""
    for row, length, value in zip(found.advantages.tolist(), LENGTHS, expected, strict=True):
        assert row[:length] == pytest.approx([value] * length, abs=1e-5)
        assert row[length:] == [0.0] * (len(row) - length)
    assert found.returns is None


@pytest.mark.parametrize("size", [2, 3, 6])
@pytest.mark.parametrize("unbiased", [True, False])
def test_grpo_equals_a_loop_over_groups(size, unbiased):
    expected = [(r - sum(g) / size) / (spread(g, unbiased) + 1e-4) for g in groups(size) for r in g]
    check_rows(GRPO(size, by_std=True, unbiased=unbiased).estimate(episodes()), expected)


@pytest.mark.parametrize("size", [2, 3, 6])
def test_dr_grpo_leaves_the_division_out(size):
    expected = [r - sum(g) / size for g in groups(size) for r in g]
    check_rows(GRPO(size, by_std=False, unbiased=True).estimate(episodes()), expected)


@pytest.mark.parametrize("size", [2, 3, 6])
def test_rloo_equals_a_loop_over_the_others(size):
    expected = [r - (sum(g[:i]) + sum(g[i + 1 :])) / (size - 1) for g in groups(size) for i, r in enumerate(g)]
    check_rows(RLOO(size).estimate(episodes()), expected)


@pytest.mark.parametrize("size", [2, 3, 6])
def test_rloo_is_dr_grpo_times_n_over_n_minus_1(size):
    rloo, grpo = RLOO(size).estimate(episodes()), GRPO(size, by_std=False, unbiased=True).estimate(episodes())
    torch.testing.assert_close(rloo.advantages, grpo.advantages * size / (size - 1))


def outcomes(*scores):
    """One-token completions with these scores."""
    rewards = torch.tensor(scores).unsqueeze(1)
    return Episodes(rewards, rewards == rewards, torch.zeros(len(scores), dtype=torch.bool), None)


def test_golden_values_of_groups():
    scores = outcomes(1.0, 2.0, 3.0, 6.0, 5.0, 5.0, 5.0, 5.0)
    found = {
        "rloo": RLOO(4),
        "dr_grpo": GRPO(4, by_std=False, unbiased=True),
        "unbiased": GRPO(4, by_std=True, unbiased=True),
        "population": GRPO(4, by_std=True, unbiased=False),
    }
    values = {name: estimator.estimate(scores).advantages[:, 0].tolist() for name, estimator in found.items()}
    assert values["rloo"][:4] == pytest.approx([-8 / 3, -4 / 3, 0.0, 4.0])
    assert values["dr_grpo"][:4] == pytest.approx([-2.0, -1.0, 0.0, 3.0])
    assert values["unbiased"][:4] == pytest.approx([-0.92582, -0.46291, 0.0, 1.38873], abs=1e-4)  # std √(14 / 3)
    assert values["population"][:4] == pytest.approx([-1.06904, -0.53452, 0.0, 1.60357], abs=1e-4)  # std √(14 / 4)
    assert all(row[4:] == [0.0] * 4 for row in values.values())  # equal rewards teach nothing


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_reinforce_pp_is_the_rewards_to_come(gamma):
    found = ReinforcePP(gamma).estimate(episodes())
    for row, rewards in zip(rows_of(found.advantages), rows_of(episodes().rewards), strict=True):
        expected = [sum(gamma ** (s - t) * rewards[s] for s in range(t, len(rewards))) for t in range(len(rewards))]
        assert row == pytest.approx(expected, abs=1e-5)
    assert found.returns is None
    assert (found.advantages[~episodes().mask] == 0).all()


def test_reinforce_pp_whitened_equals_a_loop_over_all_tokens():
    found = ReinforcePP(1.0).estimate(episodes())
    tokens = [value for row in rows_of(found.advantages) for value in row]
    mean = sum(tokens) / len(tokens)
    expected = [(value - mean) / spread(tokens, unbiased=True) for value in tokens]
    whitened = masked_whiten(found.advantages, episodes().mask)
    assert [value for row in rows_of(whitened) for value in row] == pytest.approx(expected, abs=1e-5)


def test_gae_bootstraps_what_was_cut_off_where_it_is_told_to():
    critic = CriticValues(torch.zeros(6, 5), torch.full((6,), 7.0))
    ends, goes_on = (GAE(1.0, 1.0, bootstrap).estimate(episodes(critic=critic)) for bootstrap in (False, True))
    difference = (goes_on.advantages - ends.advantages)[episodes().mask]
    expected = [7.0 * (row % 2 == 0) for row, length in enumerate(LENGTHS) for _ in range(length)]
    assert difference.tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("estimator", [RLOO(3), GRPO(3, by_std=True, unbiased=True), ReinforcePP(1.0)])
def test_what_is_added_to_every_reward_changes_nothing_that_is_learnt(estimator):
    """A baseline: only differences between completions count."""
    given = outcomes(1.0, 2.0, 3.0, 6.0, 5.0, 0.0)
    shifted = Episodes(given.rewards + 10, given.mask, given.truncated, None)
    first, second = (masked_whiten(estimator.estimate(e).advantages, e.mask) for e in (given, shifted))
    torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-5)
