"""PPO's losses and statistics against naive loops over the real tokens."""

import math

import pytest
import torch

from trainer.ppo import losses
from trainer.types import length_mask

EPSILON = 0.2


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(3)
    mask = length_mask([6, 2, 4])
    new, old = -torch.rand(2, 3, 6, generator=generator) * 2
    advantages, values, old_values, returns = torch.randn(4, 3, 6, generator=generator)
    return mask, new, old, advantages, values, old_values, returns


def real_tokens(mask, *tensors):
    return list(zip(*(tensor[mask].tolist() for tensor in tensors), strict=True))


def clip(value, low, high):
    return min(max(value, low), high)


def test_policy_loss_equals_a_loop(data):
    mask, new, old, advantages, *_ = data
    terms = []
    for n, o, a in real_tokens(mask, new, old, advantages):
        ratio = math.exp(n - o)
        terms.append(max(-a * ratio, -a * clip(ratio, 1 - EPSILON, 1 + EPSILON)))
    loss = losses.policy_loss(new, old, advantages, mask, EPSILON)
    assert loss.item() == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_policy_loss_with_unit_ratio_is_minus_the_mean_advantage(data):
    mask, new, _, advantages, *_ = data
    loss = losses.policy_loss(new, new, advantages, mask, EPSILON)
    assert loss.item() == pytest.approx(-advantages[mask].mean().item(), rel=1e-5)


def test_value_loss_equals_a_loop(data):
    mask, _, _, _, values, old_values, returns = data
    terms = []
    for v, o, r in real_tokens(mask, values, old_values, returns):
        clipped = o + clip(v - o, -EPSILON, EPSILON)
        terms.append(max((v - r) ** 2, (clipped - r) ** 2))
    loss = losses.value_loss(values, old_values, returns, mask, EPSILON)
    assert loss.item() == pytest.approx(0.5 * sum(terms) / len(terms), rel=1e-5)


def test_padding_reaches_neither_losses_nor_gradients(data):
    mask, new, old, advantages, values, old_values, returns = data
    clean, spoiled = new.clone().requires_grad_(), new.masked_fill(~mask, 500.0).requires_grad_()
    for logprobs in (clean, spoiled):
        losses.policy_loss(logprobs, old.masked_fill(~mask, -500.0), advantages, mask, EPSILON).backward()
    torch.testing.assert_close(spoiled.grad, clean.grad)
    assert (spoiled.grad[~mask] == 0).all()
    far = values.masked_fill(~mask, 1e9)
    expected = losses.value_loss(values, old_values, returns, mask, EPSILON)
    assert losses.value_loss(far, old_values, returns, mask, EPSILON) == expected


def test_statistics_equal_loops(data):
    mask, new, old, advantages, values, old_values, returns = data
    triples = real_tokens(mask, new, old, advantages)
    kl = sum(0.5 * (n - o) ** 2 for n, o, _ in triples)
    assert losses.approx_kl(new, old, mask).item() == pytest.approx(kl, rel=1e-5)
    decided = sum(
        -a * clip(math.exp(n - o), 1 - EPSILON, 1 + EPSILON) > -a * math.exp(n - o) + 1e-9 for n, o, a in triples
    )
    assert 0 < decided < len(triples)
    assert losses.policy_clipped(new, old, advantages, mask, EPSILON).item() == decided
    assert losses.ratios(new, old, mask).tolist() == pytest.approx([math.exp(n - o) for n, o, _ in triples], rel=1e-5)
    clipped = sum(
        (o + clip(v - o, -EPSILON, EPSILON) - r) ** 2 > (v - r) ** 2 + 1e-9
        for v, o, r in real_tokens(mask, values, old_values, returns)
    )
    assert 0 < clipped < len(triples)
    assert losses.value_clipped(values, old_values, returns, mask, EPSILON).item() == clipped


def test_explained_variance():
    mask = length_mask([3, 1])
    returns = torch.tensor([[1.0, 2.0, 3.0], [4.0, 99.0, 99.0]])
    assert losses.explained_variance(returns, returns, mask) == pytest.approx(1)
    assert losses.explained_variance(torch.full_like(returns, 2.5), returns, mask) == pytest.approx(0)
    assert losses.explained_variance(-returns, returns, mask) == pytest.approx(-3)
    assert losses.explained_variance(returns, torch.ones(2, 3), mask) is None


def test_entropy_is_that_of_the_distribution():
    logits = torch.randn(4, 9, generator=torch.Generator().manual_seed(0))
    expected = torch.distributions.Categorical(logits=logits).entropy()
    torch.testing.assert_close(losses.entropy_from_logits(logits), expected)
    assert losses.entropy_from_logits(torch.zeros(5)).item() == pytest.approx(math.log(5))
