"""A reward model that learns its annotators' reliabilities while it learns scores.

Incremental EM (Neal & Hinton 1998): each step brings the chances of the batch's votes up to date, and with them the
reliabilities of who cast them; the network descends the likelihood with these reliabilities, whose gradient is that of
the M step. No second learning rate is needed. Chances and reliabilities are buffers, so that checkpoints hold them.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from trainer.fit import Batch
from trainer.reward_model.losses import centring_penalty, vote_loss
from trainer.reward_model.reliability import Array, Prior, VoteTable, chance_right

VOTE_KEYS = ("vote_row", "vote_number", "vote_annotator", "vote_preference")
"""What a batch says of its votes, (V,) each: row of the batch, number in the table, annotator, and what was said."""


class CrowdModel(nn.Module):
    """A classifier, and what is known of its annotators.

    Args:
        classifier: Gives (N, 1) scores.
        votes: All votes that are learnt from.
        prior: Of every reliability.
        centring: Weight of the centring penalty.
    """

    def __init__(self, classifier: nn.Module, votes: VoteTable, prior: Prior, centring: float) -> None:
        super().__init__()
        self.classifier = classifier
        self.votes, self.prior, self._centring = votes, prior, centring
        self._counts = votes.per_annotator(np.ones(len(votes.pair)))
        self._per_pair = len(votes.pair) / (1 + votes.pair.max())
        none = np.zeros(len(votes.names) + 1)  # the last one stands for annotators who are not learnt from
        start = prior.most_likely(none, none)
        self.chances: Tensor
        self.rates: Tensor
        self.differences: Tensor
        self.register_buffer("chances", torch.full((len(votes.pair),), float(start[0]), dtype=torch.float64))
        self.register_buffer("rates", torch.from_numpy(start))
        self.register_buffer("differences", torch.zeros(len(votes.pair), dtype=torch.float64))

    def loss(self, _: nn.Module, batch: Batch) -> Tensor:
        """Votes' losses over rows of the batch, divided by the mean number of votes a pair, plus centring."""
        told = {key: batch[key] for key in VOTE_KEYS}
        inputs = {name: value for name, value in batch.items() if name not in VOTE_KEYS}
        a, b = self.classifier(**inputs)[:, 0].chunk(2)  # (B,), (B,)
        differences = (a - b)[told["vote_row"]]  # (V,)
        if torch.is_grad_enabled():
            self._update(told["vote_number"].cpu().numpy(), differences.detach().double().cpu().numpy())
        reliability = self.rates[told["vote_annotator"]].to(differences)
        losses = vote_loss(differences, told["vote_preference"], reliability)
        loss: Tensor = losses.sum() / (self._per_pair * len(a)) + self._centring * centring_penalty(a, b).mean()
        return loss

    def reliabilities(self) -> dict[str, float]:
        """η of every annotator."""
        return dict(zip(self.votes.names, self.rates.tolist(), strict=False))

    def _update(self, numbers: Array, differences: Array) -> None:
        """E step for the votes `numbers`, M step for everybody's reliability."""
        votes, rates = self.votes, self.rates.cpu().numpy()
        right = chance_right(differences, votes.preference[numbers], rates[votes.annotator[numbers]])
        self.chances[numbers], self.differences[numbers] = (
            torch.from_numpy(value).to(self.chances.device) for value in (right, differences)
        )
        learnt = self.prior.most_likely(votes.per_annotator(self.chances.cpu().numpy()), self._counts)
        self.rates[:-1] = torch.from_numpy(learnt).to(self.rates.device)
