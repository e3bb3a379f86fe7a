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


def token_mean(token_losses, mask):
    return losses.weighted_sum(token_losses, losses.aggregation_weights(mask, "token_mean", 6))


def clip(value, low, high):
    return min(max(value, low), high)


def test_policy_loss_equals_a_loop(data):
    mask, new, old, advantages, *_ = data
    terms = []
    for n, o, a in real_tokens(mask, new, old, advantages):
        ratio = math.exp(n - o)
        terms.append(max(-a * ratio, -a * clip(ratio, 1 - EPSILON, 1 + EPSILON)))
    loss = token_mean(losses.policy_losses(new, old, advantages, mask, EPSILON), mask)
    assert loss.item() == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_policy_loss_with_unit_ratio_is_minus_the_mean_advantage(data):
    mask, new, _, advantages, *_ = data
    loss = token_mean(losses.policy_losses(new, new, advantages, mask, EPSILON), mask)
    assert loss.item() == pytest.approx(-advantages[mask].mean().item(), rel=1e-5)


def test_value_loss_equals_a_loop(data):
    mask, _, _, _, values, old_values, returns = data
    terms = []
    for v, o, r in real_tokens(mask, values, old_values, returns):
        clipped = o + clip(v - o, -EPSILON, EPSILON)
        terms.append(max((v - r) ** 2, (clipped - r) ** 2))
    loss = token_mean(losses.value_losses(values, old_values, returns, EPSILON), mask)
    assert loss.item() == pytest.approx(0.5 * sum(terms) / len(terms), rel=1e-5)


def test_padding_reaches_neither_losses_nor_gradients(data):
    mask, new, old, advantages, values, old_values, returns = data
    clean, spoiled = new.clone().requires_grad_(), new.masked_fill(~mask, 500.0).requires_grad_()
    for logprobs in (clean, spoiled):
        far = old.masked_fill(~mask, -500.0)
        token_mean(losses.policy_losses(logprobs, far, advantages, mask, EPSILON), mask).backward()
    torch.testing.assert_close(spoiled.grad, clean.grad)
    assert (spoiled.grad[~mask] == 0).all()
    far = values.masked_fill(~mask, 1e9)
    expected = token_mean(losses.value_losses(values, old_values, returns, EPSILON), mask)
    assert token_mean(losses.value_losses(far, old_values, returns, EPSILON), mask) == expected


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


def naive_aggregate(token_losses, lengths, aggregation, max_tokens):
    rows = [row[:length] for row, length in zip(token_losses.tolist(), lengths, strict=True)]
    if aggregation == "token_mean":
        return sum(map(sum, rows)) / sum(lengths)
    if aggregation == "sequence_mean":
        return sum(sum(row) / len(row) for row in rows) / len(rows)
    return sum(sum(row) / max_tokens for row in rows) / len(rows)


@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean", "constant"])
def test_aggregations_equal_loops_and_add_up_over_any_cut(data, aggregation):
    mask, new, *_ = data
    weights = losses.aggregation_weights(mask, aggregation, max_tokens=9)
    whole = losses.weighted_sum(new.masked_fill(~mask, math.inf), weights).item()
    assert whole == pytest.approx(naive_aggregate(new, [6, 2, 4], aggregation, 9), rel=1e-6)
    parts = [losses.weighted_sum(new[rows], weights[rows]).item() for rows in ([0], [1, 2])]
    assert sum(parts) == pytest.approx(whole, rel=1e-6)


def test_golden_aggregations():
    """Losses 1 to 3 in one completion, 10 in the other, of at most 5 tokens."""
    token_losses, mask = torch.tensor([[1.0, 2.0, 3.0], [10.0, 0.0, 0.0]]), length_mask([3, 1])
    found = {
        name: losses.weighted_sum(token_losses, losses.aggregation_weights(mask, name, 5)).item()
        for name in ("token_mean", "sequence_mean", "constant")
    }
    assert found == pytest.approx({"token_mean": 4.0, "sequence_mean": 6.0, "constant": 1.6})


def test_dual_clip_equals_a_loop(data):
    mask, new, old, advantages, *_ = data
    far = torch.where(mask, new + 2.0, 0)  # ratios of e² and more: where A < 0 the first clipping does not help
    expected = []
    for n, o, a in real_tokens(mask, far, old, advantages):
        ratio = math.exp(n - o)
        loss = max(-a * ratio, -a * clip(ratio, 1 - EPSILON, 1 + EPSILON))
        expected.append(min(loss, -a * 3.0) if a < 0 else loss)
    found = losses.policy_losses(far, old, advantages, mask, EPSILON, dual_clip=3.0)
    assert found[mask].tolist() == pytest.approx(expected, rel=1e-5)
    decided = sum(a < 0 and math.exp(n - o) > 3 for n, o, a in real_tokens(mask, far, old, advantages))
    assert 0 < decided == losses.dual_clipped(far, old, advantages, mask, 3.0).item()


@pytest.mark.parametrize(
    ("ratio", "advantage", "plain", "dual"),
    [(10.0, -1.0, 10.0, 3.0), (2.0, -1.0, 2.0, 2.0), (10.0, 1.0, -1.2, -1.2), (0.1, -1.0, 0.8, 0.8)],
)
def test_dual_clip_golden_values(ratio, advantage, plain, dual):
    new, old, mask = torch.tensor([[math.log(ratio)]]), torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool)
    for dual_clip, expected in ((None, plain), (3.0, dual)):
        found = losses.policy_losses(new, old, torch.tensor([[advantage]]), mask, EPSILON, dual_clip)
        assert found.item() == pytest.approx(expected, rel=1e-6)


def test_importance_weights_are_capped_ratios_of_real_tokens():
    mask = length_mask([3, 1])
    old = torch.tensor([[-1.0, -1.0, -1.0], [-2.0, 99.0, 99.0]])
    behaviour = torch.tensor([[-1.0, -3.0, -0.5], [-2.5, -99.0, -99.0]])
    weights = losses.importance_weights(old, behaviour, mask, cap=2.0)
    assert weights.tolist() == [pytest.approx([1.0, 2.0, math.exp(-0.5)]), pytest.approx([math.exp(0.5), 1.0, 1.0])]
    uncapped = losses.importance_weights(old, behaviour, mask, cap=None)
    assert uncapped[0, 1].item() == pytest.approx(math.exp(2.0))


def test_the_effective_share_of_weights():
    assert losses.effective_share(torch.ones(7)).item() == pytest.approx(1)
    assert losses.effective_share(torch.tensor([1.0, 0.0, 0.0, 0.0])).item() == pytest.approx(0.25)
    assert losses.effective_share(torch.tensor([1.0, 3.0])).item() == pytest.approx(16 / 20)


def test_weights_make_the_loss_one_over_what_was_really_drawn():
    """Decoupled PPO: tokens drawn from other weights, weighed, have the expected gradient of tokens drawn now."""
    counts, behaviour = [1, 2, 5], torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
    advantages = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)

    def gradient(tokens, weigh):
        logits = torch.tensor(counts, dtype=torch.float64).log().requires_grad_()
        new = logits.log_softmax(0)[tokens].unsqueeze(1)
        mask = torch.ones_like(new, dtype=torch.bool)
        token_losses = losses.policy_losses(new, new.detach(), advantages[tokens].unsqueeze(1), mask, EPSILON)
        if weigh:
            drawn_with = behaviour.log()[tokens].unsqueeze(1)
            token_losses = token_losses * losses.importance_weights(new.detach(), drawn_with, mask, cap=None)
        token_mean(token_losses, mask).backward()
        return logits.grad

    on_policy = torch.tensor([0] * 1 + [1] * 2 + [2] * 5)
    stale = torch.tensor([0] * 4 + [1] * 2 + [2] * 2)
    torch.testing.assert_close(gradient(stale, weigh=True), gradient(on_policy, weigh=False))
    assert not torch.allclose(gradient(stale, weigh=False), gradient(on_policy, weigh=False), atol=1e-2)


def test_value_loss_golden_value():
    """½ max((1 − 2)², (0.5 + 0.2 − 2)²) = ½ · 1.69."""
    found = losses.value_losses(torch.tensor([[1.0]]), torch.tensor([[0.5]]), torch.tensor([[2.0]]), 0.2)
    assert found.item() == pytest.approx(0.845)
