"""Reward shaping against naive loops."""

import pytest
import torch

from trainer.ppo.rewards import ScoreScale, apply_missing_eos, apply_short_penalty, shape_rewards
from trainer.types import length_mask


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


def test_missing_eos_rules_are_three_different_things():
    scores, truncated = torch.tensor([2.0, 2.0]), torch.tensor([False, True])
    assert apply_missing_eos(scores, truncated, "none", 1.0).tolist() == [2.0, 2.0]
    assert apply_missing_eos(scores, truncated, "replace", 1.0).tolist() == [2.0, -1.0]
    assert apply_missing_eos(scores, truncated, "subtract", 1.0).tolist() == [2.0, 1.0]


def test_the_short_penalty_is_for_fewer_tokens_than_the_least():
    scores, lengths = torch.tensor([2.0, 2.0, 2.0]), torch.tensor([3, 4, 5])
    assert apply_short_penalty(scores, lengths, 4, 0.5).tolist() == [1.5, 2.0, 2.0]
    assert apply_short_penalty(scores, lengths, 0, 0.5).tolist() == [2.0, 2.0, 2.0]


def test_scale_standardises_and_refuses_scores_that_do_not_vary():
    assert ScoreScale(1.0, 2.0).standardised(torch.tensor([1.0, 5.0])).tolist() == [0.0, 2.0]
    with pytest.raises(ValueError, match="standardised"):
        ScoreScale(1.0, 0.0)
