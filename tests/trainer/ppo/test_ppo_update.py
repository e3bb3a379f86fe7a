"""The update: gradients that do not depend on how a minibatch is cut, what it learns, what stops it."""

import copy
import itertools
from dataclasses import replace

import pytest
import torch

from palate.client.types import PolicyVersion
from palate.models.weights import describe_tensors, untied_state_dict, weights_digest
from tests.tiny_models import make_tiny_policy
from trainer.ppo.advantages import GAE, GRPO, RLOO, Episodes, ReinforcePP
from trainer.ppo.build import build_actor_critic, freeze, load_policy
from trainer.ppo.errors import InvariantViolated, NotFinite, RatioMismatch
from trainer.ppo.evaluate import ForwardSettings, LocalRef
from trainer.ppo.kl import k2, k3
from trainer.ppo.lanes import Lanes
from trainer.ppo.model import ActorCritic, collate
from trainer.ppo.optimizer import make_optimizer
from trainer.ppo.stats import UpdateStats
from trainer.ppo.update import Updater, UpdateSettings
from trainer.types import Sequences, TrainingBatch, ValueTargets, length_mask

LENGTHS = (7, 1, 5, 12, 3, 9, 2, 6)
FIRST_EPOCH = [[0, 3, 4, 7], [1, 2, 5, 6]]
SETTINGS = UpdateSettings(
    num_ppo_epochs=2,
    num_mini_batches=1,
    cliprange=0.2,
    dual_clip=None,
    tis_cap=None,
    kl_place="reward_k1",
    loss_aggregation="token_mean",
    max_new_tokens=16,
    cliprange_value=0.2,
    vf_coef=0.1,
    max_grad_norm=1.0,
    whiten_advantages="batch",
    whiten_unbiased=True,
    ratio_tolerance=1e-5,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_policy(tmp_path_factory.mktemp("policy"), seed=0)


@pytest.fixture(scope="module")
def actor_critic(folder):
    _, renderer = load_policy(folder)
    model = build_actor_critic(folder, "policy", renderer)
    with torch.no_grad():  # a head of zeros would hide the backbone's gradient
        model.critic.value_head.weight.normal_(generator=torch.Generator().manual_seed(0))
    return model


@pytest.fixture
def model(actor_critic):
    return copy.deepcopy(actor_critic)


@pytest.fixture
def actor_alone(actor_critic):
    """Without a critic."""
    return ActorCritic(copy.deepcopy(actor_critic.actor), None)


@pytest.fixture
def lanes():
    threads = torch.get_num_threads()
    with Lanes(2) as lanes:
        yield lanes
    torch.set_num_threads(threads)


def updater(model, lanes, microbatch_size=8, lr=1e-3, **changes):
    optimizer = make_optimizer("adam", model.parameter_groups(lr, lr), eps=1e-5)
    forward = ForwardSettings(microbatch_size, pad_id=3, temperature=0.7)
    return Updater(model, optimizer, replace(SETTINGS, **changes), forward, lanes, torch.Generator().manual_seed(0))


def batch_of(learner, model, estimator=None):
    """Ragged sequences with the networks' own old logprobs and values; advantages are random, or an estimator's of
    random rewards.
    """
    generator = torch.Generator().manual_seed(1)

    def ids(n):
        return tuple(torch.randint(4, 300, (n,), generator=generator).tolist())

    sequences = Sequences(tuple(ids(3 + n % 4) for n in LENGTHS), tuple(ids(n) for n in LENGTHS))
    evaluated = learner.evaluate(LocalRef(freeze(model.actor), learner._forward), sequences, FIRST_EPOCH)
    dtype = next(model.parameters()).dtype
    mask = length_mask(LENGTHS)
    shape = (3, len(LENGTHS), max(LENGTHS))
    advantages, returns, noise = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    zero = torch.zeros((), dtype=dtype)
    advantages, returns = torch.where(mask, advantages, zero), torch.where(mask, returns, zero)
    if estimator:
        truncated = torch.zeros(len(LENGTHS), dtype=torch.bool)
        estimated = estimator.estimate(Episodes(advantages, mask, truncated, evaluated.critic))
        advantages, returns = estimated.advantages, estimated.returns
    return TrainingBatch(
        sequences,
        mask,
        evaluated.old_logprobs,
        torch.where(mask, evaluated.old_logprobs - noise, zero),
        torch.where(mask, evaluated.old_logprobs + noise, zero),
        advantages,
        evaluated.critic and ValueTargets(evaluated.critic.values, returns),
        kl_coef=0.3,
    )


def suspects(learner, model):
    digest = weights_digest(describe_tensors(untied_state_dict(model.actor.model)))
    return learner.suspects(PolicyVersion("run", 1, 0, digest))


def gradient(model):
    return torch.cat([parameter.grad.double().flatten() for parameter in model.parameters()])


CASES = {
    "gae": (GAE(1.0, 0.95, False), {}),
    "grpo": (GRPO(4, by_std=True, unbiased=True), {"loss_aggregation": "sequence_mean", "kl_place": "loss_k3"}),
    "dr_grpo": (GRPO(4, by_std=False, unbiased=True), {"loss_aggregation": "constant", "dual_clip": 3.0}),
    "rloo": (RLOO(2), {"tis_cap": 2.0, "kl_place": "loss_k2"}),
    "reinforce_pp": (ReinforcePP(1.0), {"tis_cap": 1.5, "loss_aggregation": "sequence_mean"}),
}
"""Every estimator, and between them every way to make a loss."""


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("size", [8, 3])
@pytest.mark.parametrize("case", CASES)
def test_microbatches_add_up_to_the_minibatch(actor_critic, actor_alone, lanes, case, size, dtype, tolerance):
    (estimator, options), found = CASES[case], {}
    for microbatch_size in (size, 1):
        model = copy.deepcopy(actor_critic if case == "gae" else actor_alone).to(dtype)
        learner = updater(model, lanes, microbatch_size, **options)
        learner.accumulate(batch_of(learner, model, estimator), UpdateStats())
        found[microbatch_size] = gradient(model)
    assert found[1].norm() > 0
    assert (found[size] - found[1]).norm() / found[1].norm() <= tolerance
    assert abs(found[size].norm() - found[1].norm()) / found[1].norm() <= tolerance


def test_an_update_makes_good_tokens_likelier_and_values_better(model, lanes):
    learner = updater(model, lanes, num_ppo_epochs=4)
    batch = batch_of(learner, model)
    stats = learner.update(batch, FIRST_EPOCH, suspects(learner, model)).means()
    ref = LocalRef(freeze(model.actor), learner._forward)
    after = learner.evaluate(ref, batch.sequences, FIRST_EPOCH)
    gain = (after.old_logprobs - batch.old_logprobs)[batch.mask]
    advantages = batch.advantages[batch.mask]
    assert gain[advantages > 0].mean() > 0 > gain[advantages < 0].mean()
    before_error, after_error = (
        (values - batch.critic.returns)[batch.mask].square().mean()
        for values in (batch.critic.old_values, after.critic.values)
    )
    assert after_error < before_error
    assert stats["policy/approxkl_avg"] > 0
    assert stats["policy/ratio_max"] > 1
    assert 0 <= stats["policy/clipfrac_avg"] < 1


def test_the_same_seed_gives_the_same_bits(actor_critic, lanes):
    found = []
    for _ in range(2):
        model = copy.deepcopy(actor_critic)
        learner = updater(model, lanes, microbatch_size=2, num_mini_batches=2)
        learner.update(batch_of(learner, model), FIRST_EPOCH, suspects(learner, model))
        found.append(untied_state_dict(model))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_rows_are_reshuffled_for_each_epoch_and_all_used(model, lanes):
    learner = updater(model, lanes, num_ppo_epochs=3, num_mini_batches=3)
    minibatches = list(learner._all_minibatches(FIRST_EPOCH, 8))
    epochs = [minibatches[:2], minibatches[2:5], minibatches[5:]]
    assert epochs[0] == FIRST_EPOCH
    assert [sorted(itertools.chain(*epoch)) for epoch in epochs] == [list(range(8))] * 3
    assert epochs[1] != epochs[2]
    assert {len(rows) for rows in minibatches[2:]} == {2, 3}


def test_minibatch_whitening_is_over_the_minibatch(model, lanes):
    learner = updater(model, lanes)
    whitened = learner._whitened(batch_of(learner, model).rows([0, 3]))
    real = whitened.advantages[whitened.mask]
    assert real.mean().abs() < 1e-6
    assert real.std() == pytest.approx(1, abs=1e-5)


def test_old_logprobs_are_computed_in_the_shapes_of_the_first_epoch(model, lanes):
    learner = updater(model, lanes, microbatch_size=3)
    batch = batch_of(learner, model)
    for rows in FIRST_EPOCH:
        assert (learner.accumulate(batch.rows(rows), UpdateStats()) == 1).all()


def test_critic_warm_up_leaves_the_policy_alone(model, lanes):
    learner = updater(model, lanes)
    before = copy.deepcopy(model.state_dict())
    learner.update(batch_of(learner, model), FIRST_EPOCH, suspects(learner, model), train_policy=False)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert all(name.startswith("critic.") for name in changed)


def test_dropout_fires_the_first_minibatch_invariant(model, lanes):
    learner = updater(model, lanes)
    batch = batch_of(learner, model)
    model.actor.model.config.attention_dropout = 0.2
    for module in model.actor.model.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.2
    model.train()
    with pytest.raises(RatioMismatch) as raised:
        learner.update(batch, FIRST_EPOCH, suspects(learner, model))
    assert "dropout is on" in raised.value.causes[0]


def test_changed_weights_fire_the_first_minibatch_invariant(model, lanes):
    learner = updater(model, lanes)
    batch, at_sampling = batch_of(learner, model), suspects(learner, model)
    with torch.no_grad():
        model.actor.model.lm_head.weight.mul_(1.01)
    with pytest.raises(InvariantViolated) as raised:
        learner.update(batch, FIRST_EPOCH, at_sampling)
    assert "stale weights" in raised.value.causes[0]


@pytest.mark.parametrize("spoiled", ["advantages", "returns"])
def test_a_gradient_that_is_no_number_stops_before_the_step(model, lanes, spoiled):
    learner = updater(model, lanes, whiten_advantages="none")
    batch = batch_of(learner, model)
    (batch.advantages if spoiled == "advantages" else batch.critic.returns)[0, 0] = float("nan")
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(NotFinite, match="policy" if spoiled == "advantages" else "value"):
        learner.update(batch, FIRST_EPOCH, suspects(learner, model))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def policy_gradient(model):
    return torch.cat([parameter.grad.double().flatten() for parameter in model.actor.parameters()])


def accumulated(model, lanes, batch_changes=None, **options):
    """The policy's gradient over one minibatch."""
    model = copy.deepcopy(model)
    learner = updater(model, lanes, **options)
    batch = replace(batch_of(learner, model), **(batch_changes or {}))
    learner.accumulate(batch, UpdateStats())
    return policy_gradient(model)


@pytest.mark.parametrize(("cap", "factor"), [(4.0, 2.0), (1.5, 1.5)])
def test_importance_weights_scale_the_policy_gradient_and_are_capped(model, lanes, cap, factor):
    old = batch_of(updater(model, lanes), model).old_logprobs
    drawn_half_as_likely = {"behaviour_logprobs": old - torch.tensor(2.0).log()}
    plain, weighed = (accumulated(model, lanes, drawn_half_as_likely, tis_cap=c) for c in (None, cap))
    assert (weighed - factor * plain).norm() <= 1e-5 * plain.norm()


@pytest.mark.parametrize(("place", "estimate"), [("loss_k2", k2), ("loss_k3", k3)])
def test_a_kl_in_the_loss_has_the_gradient_of_its_estimator(model, lanes, place, estimate):
    batch = batch_of(updater(model, lanes), model)
    found = accumulated(model, lanes, {"advantages": torch.zeros_like(batch.advantages)}, kl_place=place)
    new = model.actor.logprobs(collate(batch.sequences, pad_id=3), 0.7)
    (0.3 * estimate(new, batch.ref_logprobs)[batch.mask].mean()).backward()
    torch.testing.assert_close(found, policy_gradient(model), rtol=1e-3, atol=1e-7)
    assert found.norm() > 0
    nothing = accumulated(model, lanes, {"advantages": torch.zeros_like(batch.advantages)})  # the reward holds it
    assert nothing.norm() == 0


def test_dual_clip_bounds_what_one_token_can_do(model, lanes):
    """Advantages below 0 and ratios far above the bound: the loss no longer depends on the weights."""
    batch = batch_of(updater(model, lanes), model)
    far = {"old_logprobs": batch.old_logprobs - 3, "advantages": -batch.mask.float()}
    assert accumulated(model, lanes, far).norm() > 0
    assert accumulated(model, lanes, far, dual_clip=3.0).norm() == 0


def test_without_a_critic_only_the_policy_learns_and_is_reported(actor_alone, lanes):
    learner = updater(actor_alone, lanes, num_ppo_epochs=2)
    batch = batch_of(learner, actor_alone, RLOO(4))
    assert batch.critic is None
    before = copy.deepcopy(actor_alone.state_dict())
    stats = learner.update(batch, FIRST_EPOCH, suspects(learner, actor_alone)).means()
    assert not any(name.startswith("val/") or name == "loss/value_avg" for name in stats)
    assert stats["policy/grad_norm_avg"] > 0
    changed = {name for name, tensor in actor_alone.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert len(learner.optimizer.param_groups) == 1


def test_every_minibatch_is_an_optimiser_step(model, lanes, monkeypatch):
    learner = updater(model, lanes, num_ppo_epochs=3, num_mini_batches=4)
    steps, step = [], learner.optimizer.step
    monkeypatch.setattr(learner.optimizer, "step", lambda: steps.append(step()))
    learner.update(batch_of(learner, model), learner.draw_minibatches(8), suspects(learner, model))
    assert len(steps) == 3 * 4


def test_statistics_are_those_of_real_tokens_whatever_the_padding(model, lanes):
    """One row at a time there is no padding at all; and the entropy is of real tokens too."""
    batch = batch_of(updater(model, lanes), model)
    moved = replace(batch, old_logprobs=torch.where(batch.mask, batch.behaviour_logprobs, 0))
    found = []
    for microbatch_size in (8, 1):
        learner, stats = updater(model, lanes, microbatch_size, dual_clip=3.0), UpdateStats(policy_norms=[0.0])
        learner.accumulate(moved, stats)
        found.append(stats.means())
    assert found[0] == pytest.approx(found[1], rel=1e-4)
    assert found[0]["policy/approxkl_avg"] > 0.01
    new = model.actor.logprobs(collate(moved.sequences, pad_id=3), 0.7)
    difference = (new - moved.old_logprobs)[moved.mask]
    assert found[0]["policy/approxkl_avg"] == pytest.approx(0.5 * difference.square().mean().item(), rel=1e-4)
    assert found[0]["policy/ratio_avg"] == pytest.approx(difference.exp().mean().item(), rel=1e-4)
    entropies = [
        learner.evaluate(LocalRef(freeze(model.actor), learner._forward), moved.sequences, [rows]).entropy[rows[0]]
        for rows in ([0, 1, 2, 3, 4, 5, 6, 7], [0])
    ]
    torch.testing.assert_close(entropies[0], entropies[1], atol=1e-5, rtol=1e-5)
    assert (entropies[0][LENGTHS[0] :] == 0).all()
