"""What torchrun starts for the tests of several ranks: one update on fixed rollouts, in every way; prints findings."""

import copy
import dataclasses
import json
import os
import signal
import sys
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor

from palate.client.types import PolicyVersion
from palate.models.weights import describe_tensors, untied_state_dict, weights_digest
from trainer.command import run_or_explain
from trainer.lora import adapter_tensors, add_adapters
from trainer.lora_config import LoraGroup
from trainer.ppo.advantages import GAE, GRPO, Episodes
from trainer.ppo.build import build_actor_critic, freeze, load_policy
from trainer.ppo.errors import NotFinite, PublishFailed
from trainer.ppo.evaluate import ForwardSettings, LocalRef
from trainer.ppo.lanes import Lanes
from trainer.ppo.optimizer import make_optimizer
from trainer.ppo.parallel import alone, shard, spread
from trainer.ppo.ranks import LeadingUpdater, follow
from trainer.ppo.team import Team, joined
from trainer.ppo.update import Updater, UpdateSettings
from trainer.types import Sequences, TrainingBatch, ValueTargets, length_mask

LENGTHS = (7, 1, 5, 12, 3, 9, 2, 6, 4)
MINIBATCHES = [[0, 3, 4, 7, 8], [1, 2, 5, 6]]
ESTIMATORS = {"gae": GAE(1.0, 0.95, False), "grpo": GRPO(3, by_std=True, unbiased=True)}
DTYPES = {"fp32": torch.float32, "fp64": torch.float64}
CPU = torch.device("cpu")


def settings(estimator):
    aggregation, place = ("token_mean", "reward_k1") if estimator == "gae" else ("sequence_mean", "loss_k3")
    return UpdateSettings(
        num_ppo_epochs=1,
        num_mini_batches=2,
        cliprange=0.2,
        dual_clip=None,
        tis_cap=None,
        kl_place=place,
        loss_aggregation=aggregation,
        max_new_tokens=16,
        cliprange_value=0.2,
        vf_coef=0.1,
        max_grad_norm=1e-2,  # below the norms, so that all of it is clipped
        whiten_advantages="minibatch",
        whiten_unbiased=True,
        ratio_tolerance=1e-5,
    )


def sequences():
    generator = torch.Generator().manual_seed(1)

    def ids(n):
        return tuple(torch.randint(4, 300, (n,), generator=generator).tolist())

    return Sequences(tuple(ids(3 + n % 4) for n in LENGTHS), tuple(ids(n) for n in LENGTHS))


def batch_of(evaluated, estimator, dtype):
    mask = length_mask(LENGTHS)
    noise = torch.randn(mask.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(dtype)
    rewards = torch.where(mask, noise, 0)
    truncated = torch.zeros(len(LENGTHS), dtype=torch.bool)
    estimated = ESTIMATORS[estimator].estimate(Episodes(rewards, mask, truncated, evaluated.critic))
    critic = evaluated.critic and ValueTargets(evaluated.critic.values, estimated.returns)
    old = evaluated.old_logprobs
    return TrainingBatch(
        sequences(), mask, old, old, evaluated.ref_logprobs - noise * mask, estimated.advantages, critic, kl_coef=0.3
    )


def make_model(folder, estimator, dtype, lora=False):
    _, renderer = load_policy(folder)
    model = build_actor_critic(folder, "policy" if estimator == "gae" else None, renderer)
    if model.critic is not None:
        with torch.no_grad():  # a head of zeros would hide the backbone's gradient
            model.critic.value_head.weight.normal_(generator=torch.Generator().manual_seed(0))
    if lora:
        torch.manual_seed(0)
        add_adapters(model.actor.model, LoraGroup(rank=3))
        for factor in adapter_tensors(model.actor.model).values():  # factors of zeros would hide the others' gradient
            factor.normal_(std=0.1)
    return model.to(dtype)


def make_updater(model, networks, estimator, team, lanes, kind=Updater, optimizer="adam"):
    optimizer = make_optimizer(optimizer, networks.model.parameter_groups(1e-3, 2e-3), eps=1e-5)
    forward = ForwardSettings(2, pad_id=3, temperature=0.7)
    shuffler = torch.Generator().manual_seed(0)
    return kind(model, optimizer, settings(estimator), forward, lanes, shuffler, networks, team)


def numbers(tensors):
    return torch.cat([tensor.detach().double().flatten() for tensor in tensors])


def step(updater, ref, estimator, dtype):
    """One update; what it leaves behind."""
    evaluated = updater.evaluate(ref, sequences(), MINIBATCHES)
    batch = batch_of(evaluated, estimator, dtype)
    version = PolicyVersion("run", 1, 0, weights_digest(describe_tensors(untied_state_dict(updater.model.actor.model))))
    stats = updater.update(batch, MINIBATCHES, updater.suspects(version))
    model, optimizer, _ = updater.whole()
    state = optimizer.state_dict()["state"]
    return {
        "norms": [*stats.policy_norms, *stats.value_norms],
        "logprobs": evaluated.old_logprobs.double()[batch.mask],
        "ref": evaluated.ref_logprobs.double()[batch.mask],
        "stats": dataclasses.asdict(stats),
        "moments": numbers(state[index]["exp_avg"] for index in sorted(state)),
        "weights": numbers(model.parameters()),
    }


def compared(found, expected):
    def far(name):
        return float((found[name] - expected[name]).norm() / expected[name].norm())

    pairs = zip(found["norms"], expected["norms"], strict=True)
    return {
        "norms": max(abs(a - b) / b for a, b in pairs),
        **{name: far(name) for name in ("logprobs", "ref", "moments", "weights")},
        "stats": {name: [found["stats"][name], expected["stats"][name]] for name in found["stats"]},
    }


def try_way(folder, way, estimator, precision, team, optimizer, lora=False):
    dtype = DTYPES[precision]
    model = make_model(folder, estimator, dtype, lora)
    single = copy.deepcopy(model)
    networks, actor = spread(model, way, CPU, team.size), freeze(model.actor)
    if way == "fsdp2":
        shard(actor, CPU)
    with Lanes(1) as lanes:
        kind = LeadingUpdater if team.rank == 0 else Updater
        updater = make_updater(model, networks, estimator, team, lanes, kind, optimizer)
        ref = LocalRef(actor, updater._forward, team)
        if team.rank > 0:
            follow(updater, ref, team)
            return None
        found = step(updater, ref, estimator, dtype)
        alone_updater = make_updater(single, alone(single), estimator, Team(), lanes, optimizer=optimizer)
        alone_ref = LocalRef(freeze(single.actor), updater._forward)
        expected = step(alone_updater, alone_ref, estimator, dtype)
        report = compared(found, expected) | {
            "dtensors": all(isinstance(parameter, DTensor) for parameter in networks.model.parameters()),
            "local_share": numbers(map(_local, networks.model.parameters())).numel() / len(numbers(model.parameters())),
            "again": restored_goes_on((updater, ref), (alone_updater, alone_ref), estimator, dtype),
        }
        team.tell(None)
        return report


class Kept:
    """Stands for a checkpoint folder: gives back what was taken from a single process."""

    def __init__(self, model, state):
        self.weights, self.state = copy.deepcopy(model.state_dict()), copy.deepcopy(state)

    def restore(self, model, optimizer, shuffler):
        model.load_state_dict(self.weights)
        optimizer.load_state_dict(self.state)
        return self


def restored_goes_on(ranks, single, estimator, dtype):
    """Both go on from the single process' state, handed out to the ranks: how far their next steps lie apart."""
    (updater, ref), (alone_updater, alone_ref) = ranks, single
    with torch.no_grad():
        for parameter in updater.model.parameters():
            parameter.zero_()
    model, optimizer, _ = alone_updater.whole()
    updater.restore(Kept(model, optimizer.state_dict()))
    return compared(step(updater, ref, estimator, dtype), step(alone_updater, alone_ref, estimator, dtype))["moments"]


def _local(parameter):
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter


def compare(folder, out, cases, team):
    found = {}
    for case in cases:
        way, estimator, precision, optimizer, *lora = case.split("-")
        found[case] = try_way(folder, way, estimator, precision, team, optimizer, bool(lora))
    if team.rank == 0:
        Path(out).write_text(json.dumps(found))
    else:
        team.told()


def fail(how, team):
    """Rank 1 fails in the middle of something that all do."""
    if team.rank == 1 and how == "raises":
        raise NotFinite("the policy gradient has norm nan")
    if team.rank == 1 and how == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if team.rank == 1 and how == "hangs":
        signal.pause()
    if team.rank == 0 and how == "leader":
        raise PublishFailed("step 3 is not published")
    if team.rank == 1 and how == "leader":
        team.told()
    team.total(torch.ones(3))


def main(what, *arguments):
    """Compares ways, or fails in one."""
    timeout = 8 if arguments == ("hangs",) else 60
    with joined("ddp", "cpu", timeout) as team:
        if what == "compare":
            compare(arguments[0], arguments[1], arguments[2:], team)
        else:
            fail(arguments[0], team)


if __name__ == "__main__":
    run_or_explain("rank_program", lambda: main(*sys.argv[1:]))
