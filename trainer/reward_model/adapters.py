"""A reward model that learnt through adapters, as it is served, and what is told of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn

from palate.models.classifier import MaskedClassifier
from palate.models.weights import WeightsError
from trainer.fit import FitError
from trainer.lora import has_adapters, merged_model, targets_of
from trainer.reward_model.lora_config import RewardLoraGroup
from trainer.reward_model.start import Start


@dataclass(frozen=True, slots=True)
class AdaptersReport:
    """How a reward model learnt through adapters; of an ensemble, how each member did.

    Attributes:
        rank: Of every adapter.
        alpha: An adapter's product counts alpha / rank.
        dropout: Share of an adapter's inputs that were left out in a step.
        layers: How many have an adapter.
        trained: Parameters that learnt: those of the adapters and of what learns as a whole.
        share: `trained` over the parameters of the model that is served.
    """

    rank: int
    alpha: int
    dropout: float
    layers: int
    trained: int
    share: float


def report_adapters(model: nn.Module, lora: RewardLoraGroup) -> AdaptersReport | None:
    """Of a model that still has them; None for one without."""
    if not has_adapters(model):
        return None
    trained = sum(each.numel() for each in model.parameters() if each.requires_grad)
    added = sum(each.numel() for name, each in model.named_parameters() if ".lora_" in name)
    share = trained / (sum(each.numel() for each in model.parameters()) - added)
    return AdaptersReport(lora.rank, lora.alpha, lora.dropout, len(targets_of(model)), trained, share)


def as_served(start: Start) -> Start:
    """The same with its adapters merged into the weights, where it was; without adapters, `start`.

    Raises:
        FitError: The weights are no longer finite.
    """
    if not has_adapters(start.model):
        return start
    device = start.model.device
    try:
        plain = merged_model(start.model.cpu()).to(device)
    except WeightsError as error:
        raise FitError(f"{error}; lower --learning-rate or --lora.alpha") from error
    return replace(start, model=plain, classifier=MaskedClassifier(plain, start.manifest.architecture).eval())
