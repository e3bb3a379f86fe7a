"""What a reward model minimises: Bradley–Terry with soft labels, smoothing, margins; centring; votes of annotators."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def bradley_terry_loss(
    scores_a: Tensor, scores_b: Tensor, preference: Tensor, margin: Tensor | float = 0.0, label_smoothing: float = 0.0
) -> Tensor:
    """−q log σ(Δ) − (1 − q) log σ(−Δ) with q = p(1 − 2ε) + ε and Δ = score(a) − score(b) − m(2p − 1).

    With p = 1 and ε = 0 this is −log σ(r_c − r_r − m) (Ouyang et al. 2022; the margin of Touvron et al. 2023). A tie
    (p = ½) draws the two scores together and takes no margin.

    Args:
        scores_a: (B,) raw scores of the first completions.
        scores_b: (B,) of the second ones.
        preference: (B,) p, the probability that the first is better, as labelled: 1, 0, or ½ for a tie.
        margin: (B,) or one number m ≥ 0, in units of the score.
        label_smoothing: ε in [0, ½), the share of labels that are taken to be wrong.

    Returns:
        (B,) losses in nats.
    """
    difference = scores_a - scores_b - margin * (2.0 * preference - 1.0)  # (B,)
    expected = preference * (1.0 - 2.0 * label_smoothing) + label_smoothing  # (B,)
    return F.binary_cross_entropy_with_logits(difference, expected, reduction="none")


def centring_penalty(scores_a: Tensor, scores_b: Tensor) -> Tensor:
    """(B,) of (score(a) + score(b))²: keeps scores around 0, which Bradley–Terry alone leaves open.

    Source: Eisenstein et al. 2023, section 2.1.
    """
    return (scores_a + scores_b).square()


def vote_loss(differences: Tensor, preference: Tensor, reliability: Tensor) -> Tensor:
    """−p log P − (1 − p) log(1 − P) with P = η σ(Δ) + (1 − η) σ(−Δ): Crowd-BT (Chen et al. 2013).

    With η = 1 this is Bradley–Terry; with η = ½ a vote says nothing, and below ½ it says the contrary.

    Args:
        differences: (V,) Δ = score(a) − score(b) of the pair that each vote is on.
        preference: (V,) p, the vote: 1, 0, or ½ for a tie.
        reliability: (V,) η in (0, 1) of who cast it.

    Returns:
        (V,) losses in nats.
    """
    told, wrong = reliability.log(), (-reliability).log1p()  # (V,), (V,)
    for_a, for_b = F.logsigmoid(differences), F.logsigmoid(-differences)  # (V,), (V,)
    log_a = (told + for_a).logaddexp(wrong + for_b)
    log_b = (told + for_b).logaddexp(wrong + for_a)
    return -preference * log_a - (1.0 - preference) * log_b
