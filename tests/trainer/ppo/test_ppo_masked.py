"""Masked statistics against published numbers and against the real positions taken out by hand."""

import pytest
import torch

from trainer.ppo.masked import masked_mean, masked_variance, masked_whiten
from trainer.types import length_mask

GOLDEN = torch.tensor([[1.2, 1.3, 1.4], [1.5, 1.6, 1.7], [1.8, 1.9, 2.0]])
POPULATION = [
    [0.05080712, 0.4381051, 0.8254035],
    [1.2127019, 1.6000004, 1.9872988],
    [2.3745968, 2.7618952, 3.1491438],
]
UNBIASED = [[0.1394, 0.5046, 0.8697], [1.2349, 1.6, 1.9651], [2.3303, 2.6954, 3.0606]]


@pytest.mark.parametrize(("unbiased", "expected", "tolerance"), [(False, POPULATION, 1e-4), (True, UNBIASED, 1e-4)])
def test_whitening_gives_the_golden_values(unbiased, expected, tolerance):
    whitened = masked_whiten(GOLDEN, torch.ones(3, 3), shift_mean=False, unbiased=unbiased)
    torch.testing.assert_close(whitened, torch.tensor(expected), atol=tolerance, rtol=0)


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("shift_mean", [True, False])
def test_padding_changes_nothing(unbiased, shift_mean):
    generator = torch.Generator().manual_seed(0)
    values, mask = torch.randn(4, 6, generator=generator), length_mask([6, 1, 3, 4])
    real = values[mask]
    spoiled = values.masked_fill(~mask, 1e6)
    assert masked_mean(spoiled, mask) == pytest.approx(real.mean().item())
    assert masked_variance(spoiled, mask, unbiased=unbiased) == pytest.approx(
        real.var(correction=int(unbiased)).item(), rel=1e-5
    )
    whitened = masked_whiten(spoiled, mask, shift_mean=shift_mean, unbiased=unbiased)
    mean = 0 if shift_mean else real.mean()
    expected = (real - real.mean()) / real.std(correction=int(unbiased)) + mean
    torch.testing.assert_close(whitened[mask], expected, atol=1e-5, rtol=1e-5)
    assert (whitened[~mask] == 0).all()


def test_a_single_token_whitens_to_a_number():
    assert masked_whiten(torch.tensor([[3.0]]), torch.tensor([[True]])).tolist() == [[0.0]]
