"""KL estimators, reward shaping and the KL controllers, against published numbers and naive loops."""

import math

import pytest
import torch

from trainer.ppo.rewards import (
    AdaptiveKL,
    FixedKL,
    ScoreScale,
    apply_missing_eos,
    apply_short_penalty,
    k1,
    k2,
    k3,
    sequence_kl,
    shape_rewards,
)
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


def ragged(generator, rows=5, longest=7):
    lengths = torch.randint(1, longest + 1, (rows,), generator=generator).tolist()
    lengths[0] = longest
    logprobs, ref = -torch.rand(2, rows, longest, generator=generator)
    return lengths, length_mask(lengths), logprobs, ref


@pytest.mark.parametrize("seed", range(3))
def test_shaping_equals_a_loop_over_tokens(seed):
    generator = torch.Generator().manual_seed(seed)
    lengths, mask, logprobs, ref = ragged(generator)
    scores = torch.randn(len(lengths), generator=generator)
    # What lies in the padding must not matter: the old code bases put 1.0 there and sometimes summed it.
    shaped = shape_rewards(scores, logprobs.masked_fill(~mask, 1.0), ref.masked_fill(~mask, 7.0), mask, 0.3)
    for row, length in enumerate(lengths):
        for t in range(mask.shape[1]):
            penalty = -0.3 * (logprobs[row, t] - ref[row, t]).item() if t < length else 0.0
            score = scores[row].item() if t == length - 1 else 0.0
            assert shaped.non_score[row, t].item() == pytest.approx(penalty, abs=1e-6)
            assert shaped.rewards[row, t].item() == pytest.approx(penalty + score, abs=1e-6)


def test_sequence_kl_is_a_sum_over_real_tokens():
    mask = length_mask([1, 3])
    logprobs = torch.tensor([[-1.0, 9.0, 9.0], [-1.0, -2.0, -3.0]])
    ref = torch.tensor([[-1.5, -9.0, -9.0], [-2.0, -2.0, -2.5]])
    assert sequence_kl(logprobs, ref, mask).tolist() == pytest.approx([0.5, 0.5])


def test_missing_eos_rules_are_three_different_things():
    scores, truncated = torch.tensor([2.0, 2.0]), torch.tensor([False, True])
    assert apply_missing_eos(scores, truncated, "none", 1.0).tolist() == [2.0, 2.0]
    assert apply_missing_eos(scores, truncated, "replace", 1.0).tolist() == [2.0, -1.0]
    assert apply_missing_eos(scores, truncated, "subtract", 1.0).tolist() == [2.0, 1.0]


def test_the_short_penalty_is_for_fewer_tokens_than_the_least():
    scores, lengths = torch.tensor([2.0, 2.0, 2.0]), torch.tensor([3, 4, 5])
    assert apply_short_penalty(scores, lengths, 4, 0.5).tolist() == [1.5, 2.0, 2.0]
    assert apply_short_penalty(scores, lengths, 0, 0.5).tolist() == [2.0, 2.0, 2.0]


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


def test_fixed_controller_stays():
    assert FixedKL(0.1).updated(100.0, 64).kl_coef == 0.1


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("name", ["target", "horizon"])
def test_controller_refuses_what_it_would_divide_by(name, wrong):
    with pytest.raises(ValueError, match=name):
        AdaptiveKL(0.1, **{"target": 6.0, "horizon": 100.0, name: wrong})


def test_scale_standardises_and_refuses_scores_that_do_not_vary():
    assert ScoreScale(1.0, 2.0).standardised(torch.tensor([1.0, 5.0])).tolist() == [0.0, 2.0]
    with pytest.raises(ValueError, match="standardised"):
        ScoreScale(1.0, 0.0)
