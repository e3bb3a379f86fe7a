"""Adam as PyTorch has it and as TensorFlow has it, and the learning rate's way to zero."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim import Optimizer

from trainer.ppo.choices import OptimizerName


class AdamTFStyle(Optimizer):
    """Adam with TensorFlow's place for epsilon, which the first RLHF papers trained with.

    lr_t = lr √(1 − β₂ᵗ) / (1 − β₁ᵗ);  θ ← θ − lr_t · m / (√v + ε̂). PyTorch adds ε after the bias correction of v
    instead, which makes its first steps larger for the same ε. Kingma and Ba 2015, the note before section 2.1.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-5,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step along the gradients."""
        loss = None if closure is None else closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step_one(parameter, group)
        return loss

    def _step_one(self, parameter: torch.Tensor, group: dict[str, Any]) -> None:
        state, (beta1, beta2) = self.state[parameter], group["betas"]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["step"] += 1
        t, gradient = state["step"].item(), parameter.grad
        assert gradient is not None
        m = state["exp_avg"].lerp_(gradient, 1 - beta1)
        v = state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        rate = group["lr"] * (1 - beta2**t) ** 0.5 / (1 - beta1**t)
        parameter.addcdiv_(m, v.sqrt().add_(group["eps"]), value=-rate)


def make_optimizer(name: OptimizerName, groups: list[dict[str, Any]], eps: float) -> Optimizer:
    """Adam over `groups` (each with its parameters and `lr`), betas (0.9, 0.999), no weight decay."""
    for group in groups:
        group["initial_lr"] = group["lr"]
    if name == "adam_tf_style":
        return AdamTFStyle(groups, eps=eps)
    return torch.optim.Adam(groups, betas=(0.9, 0.999), eps=eps)


def anneal(optimizer: Optimizer, step: int, total_steps: int) -> None:
    """Sets every group's rate to initial · (1 − step / total): full at step 0, zero when all steps are done."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * (1 - step / total_steps)
