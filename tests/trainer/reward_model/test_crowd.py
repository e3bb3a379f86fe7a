from random import Random

import numpy as np
import pytest
import torch
from torch import nn

from palate.models.rendering import Rendered
from trainer.data.comparisons import Comparison
from trainer.data.lines import DataError
from trainer.data.votes import Pair, Vote, pairs_of
from trainer.reward_model.crowd import VOTE_KEYS, CrowdModel
from trainer.reward_model.losses import centring_penalty, vote_loss
from trainer.reward_model.reliability import Prior, chance_right, vote_table
from trainer.reward_model.rows import RenderedPair, collator, vote_rows

PRIOR = Prior(4.0, 2.0)
RELIABILITIES = {"ann": 0.95, "bob": 0.8, "dan": 0.6, "eve": 0.1}


class OneScoreAToken(nn.Module):
    """Scores a text by its first token: the smallest model with the interface of a classifier."""

    def __init__(self, tokens=20):
        super().__init__()
        self.scores = nn.Embedding(tokens, 1)
        nn.init.zeros_(self.scores.weight)

    def forward(self, input_ids, attention_mask):
        return self.scores(input_ids[:, 0])


def rendered(pair):
    a, b = (Rendered(text, (int(text),), 1) for text in (pair.a, pair.b))
    return RenderedPair(pair, a, b)


def judged(count, seed):
    """Higher tokens are better; each pair judged by two of those who err."""
    rng, rows = Random(seed), []
    for _ in range(count):
        a, b = rng.sample(range(20), 2)
        for name in rng.sample(sorted(RELIABILITIES), 2):
            right = rng.random() < RELIABILITIES[name]
            rows.append(Comparison("", str(a), str(b), "a" if (a > b) == right else "b", name))
    return pairs_of(rows)


def batches(rows, size, rng):
    order = rng.sample(range(len(rows)), len(rows))
    for start in range(0, len(rows), size):
        yield collator(0)([rows[index] for index in order[start : start + size]])


def test_reliabilities_are_learnt_while_scores_are():
    pairs = judged(1500, 0)
    votes = vote_table(pairs)
    model = CrowdModel(OneScoreAToken(), votes, PRIOR, centring=0.0)
    rows, optimizer = vote_rows([rendered(pair) for pair in pairs], votes), torch.optim.Adam(model.parameters(), 0.1)
    for _ in range(6):
        for batch in batches(rows, 32, Random(1)):
            optimizer.zero_grad()
            model.loss(model, batch).backward()
            optimizer.step()
    # Close pairs excuse some errors, so that nobody looks worse than they are.
    assert model.reliabilities() == pytest.approx(RELIABILITIES, abs=0.12)
    scores = model.classifier.scores.weight[:, 0].tolist()
    assert np.corrcoef(scores, range(20))[0, 1] > 0.9


def make_small():
    pairs = (
        Pair("", "1", "2", (Vote("ann", "a"), Vote("bob", "tie"))),
        Pair("", "3", "1", (Vote("ann", "b"),)),
    )
    votes = vote_table(pairs)
    model = CrowdModel(OneScoreAToken(), votes, PRIOR, centring=0.5)
    with torch.no_grad():
        model.classifier.scores.weight[:, 0] = torch.linspace(-1, 2, 20)
    return pairs, votes, model


def test_a_step_is_one_e_and_one_m_step_for_the_votes_of_the_batch():
    pairs, votes, model = make_small()
    rows = vote_rows([rendered(pair) for pair in pairs], votes)
    scores = model.classifier.scores.weight[:, 0].tolist()
    model.loss(model, collator(0)(rows[1:]))  # the second pair alone
    right = chance_right(np.array([scores[3] - scores[1]]), np.array([0.0]), np.array([0.75]))[0]
    ann, bob = (0.75 + right + 3) / (2 + 4), (0.75 + 3) / (1 + 4)
    assert model.reliabilities() == pytest.approx({"ann": ann, "bob": bob})
    assert model.differences.tolist() == pytest.approx([0.0, 0.0, scores[3] - scores[1]])


def test_the_loss_is_that_of_the_votes_and_evaluation_leaves_reliabilities_alone():
    pairs, votes, model = make_small()
    before = model.reliabilities()
    batch = collator(0)(vote_rows([rendered(pair) for pair in pairs], votes))
    with torch.no_grad():
        loss = model.loss(model, dict(batch)).item()
        score = model.classifier.scores.weight[:, 0]
        differences = torch.stack([score[1] - score[2], score[1] - score[2], score[3] - score[1]])
        told = vote_loss(differences, torch.tensor([1.0, 0.5, 0.0]), torch.full((3,), 0.75)).sum()
        centring = centring_penalty(score[[1, 3]], score[[2, 1]]).mean()
    assert loss == pytest.approx((told / 3 + 0.5 * centring).item(), abs=1e-6)  # 3 votes on 2 pairs, 2 rows
    assert model.reliabilities() == before
    assert set(VOTE_KEYS) <= set(batch)


def test_annotators_who_are_not_learnt_from_count_as_the_prior_says():
    _, votes, model = make_small()
    stranger = Pair("", "3", "1", (Vote("zoe", "a"),))
    batch = collator(0)(vote_rows([rendered(stranger)], votes))
    assert batch["vote_annotator"].tolist() == [2]
    assert model.rates[2].item() == 0.75


def test_everything_that_is_learnt_is_in_the_checkpoint():
    pairs, votes, model = make_small()
    model.loss(model, collator(0)(vote_rows([rendered(pair) for pair in pairs], votes)))
    other = make_small()[2]
    other.load_state_dict(model.state_dict())
    assert other.reliabilities() == model.reliabilities()
    assert torch.equal(other.chances, model.chances)


def test_margins_are_refused():
    pair = Pair("", "1", "2", (Vote("ann", "a"),), margin=1.0)
    with pytest.raises(DataError, match="some comparisons have a margin"):
        vote_rows([rendered(pair)], vote_table([pair]))
