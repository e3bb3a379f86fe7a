import math

import pytest
import torch

from palate.models.logprobs import log_probabilities, masked_positions, sampled_logprobs


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_equals_the_definition(temperature):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, 11, generator=generator)
    ids = torch.randint(0, 11, (3, 4), generator=generator)
    got = sampled_logprobs(logits, ids, temperature)
    for row in range(3):
        for column in range(4):
            scaled = [value / temperature for value in logits[row, column].tolist()]
            largest = max(scaled)
            total = largest + math.log(sum(math.exp(value - largest) for value in scaled))
            assert got[row, column].item() == pytest.approx(scaled[ids[row, column]] - total, abs=1e-5)


def test_float32_out_of_bfloat16_logits():
    logits = torch.randn(5, 300, generator=torch.Generator().manual_seed(1)).bfloat16()
    got = sampled_logprobs(logits, torch.arange(5), 1.0)
    assert got.dtype == torch.float32
    assert torch.equal(got, sampled_logprobs(logits.float(), torch.arange(5), 1.0))


def test_tokens_that_cannot_be_drawn_leave_their_mass_to_the_rest():
    log_p = log_probabilities(torch.tensor([[0.0, 0.0, -torch.inf]]), 0.7)
    assert log_p[0, :2].tolist() == pytest.approx([-math.log(2)] * 2)
    assert log_p[0, 2].item() == -math.inf


def test_gradients_flow_to_the_logits():
    logits = torch.zeros(1, 4, requires_grad=True)
    sampled_logprobs(logits, torch.tensor([2]), 2.0).sum().backward()
    assert logits.grad[0].tolist() == pytest.approx([-0.125, -0.125, 0.375, -0.125])  # (onehot - p) / temperature


def test_ids_of_any_integer_type():
    logits = torch.randn(2, 7, generator=torch.Generator().manual_seed(2))
    for dtype in (torch.int32, torch.int64, torch.uint8):
        assert torch.equal(
            sampled_logprobs(logits, torch.tensor([3, 5], dtype=dtype), 1.0),
            sampled_logprobs(logits, torch.tensor([3, 5]), 1.0),
        )


def test_positions_count_from_the_first_real_token():
    left, right = torch.tensor([[0, 0, 1, 1, 1]]), torch.tensor([[1, 1, 1, 0, 0]])
    assert masked_positions(left).tolist() == [[0, 0, 0, 1, 2]]
    assert masked_positions(right)[0, :3].tolist() == [0, 1, 2]
    assert masked_positions(left.bool()).dtype == torch.int64
