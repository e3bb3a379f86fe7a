"""TF-style Adam against its formula, and the learning rate's way to zero."""

import pytest
import torch

from trainer.ppo.optimizer import AdamTFStyle, anneal, make_optimizer


def formula(start, gradients, lr, eps, beta1=0.9, beta2=0.999):
    theta, m, v = start, 0.0, 0.0
    for t, g in enumerate(gradients, 1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        theta -= lr * (1 - beta2**t) ** 0.5 / (1 - beta1**t) * m / (v**0.5 + eps)
    return theta


def stepped(optimizer_class, gradients, **options):
    parameter = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = optimizer_class([parameter], **options)
    for gradient in gradients:
        parameter.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
    return parameter.item(), optimizer


GRADIENTS = [1e-4, -3e-5, 2e-4, 5e-6, -1e-4]


def test_tf_style_follows_its_formula():
    found, _ = stepped(AdamTFStyle, GRADIENTS, lr=0.1, eps=1e-5)
    assert found == pytest.approx(formula(1.0, GRADIENTS, 0.1, 1e-5), abs=1e-12)


def test_pytorch_steps_further_while_gradients_are_small():
    tf_style, _ = stepped(AdamTFStyle, GRADIENTS[:1], lr=0.1, eps=1e-5)
    pytorch, _ = stepped(torch.optim.Adam, GRADIENTS[:1], lr=0.1, eps=1e-5)
    assert 1 - pytorch > 3 * (1 - tf_style) > 0
    # Without epsilon both are the same algorithm.
    tf_style, _ = stepped(AdamTFStyle, GRADIENTS, lr=0.1, eps=0.0)
    pytorch, _ = stepped(torch.optim.Adam, GRADIENTS, lr=0.1, eps=0.0)
    assert tf_style == pytest.approx(pytorch, abs=1e-9)


def test_tf_style_resumes_from_its_state():
    whole, _ = stepped(AdamTFStyle, GRADIENTS, lr=0.1, eps=1e-5)
    half, optimizer = stepped(AdamTFStyle, GRADIENTS[:3], lr=0.1, eps=1e-5)
    parameter = torch.nn.Parameter(torch.tensor([half], dtype=torch.float64))
    resumed = AdamTFStyle([parameter], lr=0.5, eps=1.0)
    resumed.load_state_dict(optimizer.state_dict())
    for gradient in GRADIENTS[3:]:
        parameter.grad = torch.tensor([gradient], dtype=torch.float64)
        resumed.step()
    assert parameter.item() == whole


@pytest.mark.parametrize("name", ["adam", "adam_tf_style"])
def test_groups_keep_their_own_rates_on_the_way_to_zero(name):
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [{"params": [parameters[0]], "lr": 1.0}, {"params": [parameters[1]], "lr": 10.0}]
    optimizer = make_optimizer(name, groups, eps=1e-5)
    assert optimizer.param_groups[0]["eps"] == 1e-5
    rates = []
    for step in range(5):
        anneal(optimizer, step, 4)
        rates.append([group["lr"] for group in optimizer.param_groups])
    assert rates == [[1.0, 10.0], [0.75, 7.5], [0.5, 5.0], [0.25, 2.5], [0.0, 0.0]]


@pytest.mark.parametrize(("gradient", "tf_style", "pytorch"), [(1e-5, 0.0306534, 0.5), (1e-2, 0.9693471, 0.9990010)])
def test_golden_first_steps(gradient, tf_style, pytorch):
    """g / (g + ε / √(1 − β₂)) against g / (g + ε), times the rate: the same ε counts 32 times as much at first."""
    for optimizer_class, expected in ((AdamTFStyle, tf_style), (torch.optim.Adam, pytorch)):
        found, _ = stepped(optimizer_class, [gradient], lr=0.1, eps=1e-5)
        assert (1 - found) / 0.1 == pytest.approx(expected, abs=1e-6)
