"""Checkpoints: everything comes back, a kill while writing costs nothing, what does not fit is refused."""

import copy
import os

import pytest
import torch
from safetensors.torch import load_file

from palate.models.weights import untied_state_dict
from tests.tiny_models import make_tiny_policy
from trainer.config import PPOConfig, PPOGroup, RecordGroup, SamplingGroup, ServicesGroup
from trainer.ppo import checkpoint, identity
from trainer.ppo.build import build_actor_critic, load_policy
from trainer.ppo.checkpoint import CheckpointFolder, restore
from trainer.ppo.errors import CheckpointDamaged, CheckpointRefused
from trainer.ppo.optimizer import make_optimizer
from trainer.ppo.rewards import ScoreScale
from trainer.ppo.state import RunIdentity, RunState

IDENTITY = RunIdentity("run", 3, {"reward": "revision"}, {"threads": "2"})


def parts(folder, name="adam", critic_init="policy"):
    _, renderer = load_policy(folder)
    model = build_actor_critic(folder, critic_init, renderer)
    optimizer = make_optimizer(name, model.parameter_groups(1e-3, 1e-2), eps=1e-5)
    return model, optimizer, torch.Generator().manual_seed(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_policy(tmp_path_factory.mktemp("policy"), seed=0)


def learn(model, optimizer, shuffler):
    generator = torch.Generator().manual_seed(int(torch.randint(1000, (1,), generator=shuffler)))
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator) + torch.randn(1)
    optimizer.step()


@pytest.mark.parametrize("name", ["adam", "adam_tf_style"])
def test_everything_comes_back(folder, tmp_path, name):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        mine = parts(folder, name)
        learn(*mine)
        state = RunState(7, 130, 0.123456789, ScoreScale(0.25, 1.5), (False, True), {"tone": ScoreScale(0.1, 0.3)})
        saved = CheckpointFolder(tmp_path, 2).save(*mine, state, IDENTITY)
        learn(*mine)
        theirs = parts(folder, name)
        restored = restore(saved, *theirs)
        learn(*theirs)
    assert restored.state == state
    assert restored.identity == IDENTITY
    after, expected = untied_state_dict(theirs[0]), untied_state_dict(mine[0])
    assert all(torch.equal(after[tensor], expected[tensor]) for tensor in expected)
    tied = theirs[0].actor.model
    assert tied.lm_head.weight is tied.model.embed_tokens.weight


@pytest.mark.parametrize("critic_init", ["policy", None])
def test_a_critic_is_stored_where_there_is_one(folder, tmp_path, critic_init):
    mine = parts(folder, critic_init=critic_init)
    learn(*mine)
    saved = CheckpointFolder(tmp_path, 2).save(*mine, RunState(1, 6, 0.1, None), IDENTITY)
    names = load_file(saved / "model.safetensors").keys()
    assert any(name.startswith("critic.") for name in names) == (critic_init is not None)
    restore(saved, *parts(folder, critic_init=critic_init))
    with pytest.raises(CheckpointRefused, match="another model"):
        restore(saved, *parts(folder, critic_init=None if critic_init else "policy"))


@pytest.mark.parametrize("calls_before_the_kill", range(6))
def test_a_kill_while_writing_leaves_the_former_one(folder, tmp_path, monkeypatch, calls_before_the_kill):
    mine = parts(folder)
    checkpoints = CheckpointFolder(tmp_path, 2)
    first = checkpoints.save(*mine, RunState(1, 6, 0.1, None), IDENTITY)
    calls = iter(range(calls_before_the_kill))
    sync = checkpoint._sync

    def killed(path):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        sync(path)

    monkeypatch.setattr(checkpoint, "_sync", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(*mine, RunState(2, 12, 0.1, None), IDENTITY)
    newest = max(tmp_path.glob("step-*"))
    # The last sync comes after the rename: by then the new one counts.
    assert newest == (first if calls_before_the_kill < 5 else tmp_path / "step-000002")
    assert restore(newest, *mine).state.step == (1 if calls_before_the_kill < 5 else 2)
    monkeypatch.undo()
    checkpoints.save(*mine, RunState(2, 12, 0.1, None), IDENTITY)
    assert sorted(os.listdir(tmp_path)) == ["step-000001", "step-000002"]


def test_only_the_newest_stay(folder, tmp_path):
    mine = parts(folder)
    checkpoints = CheckpointFolder(tmp_path, 2)
    for step in (1, 2, 3, 10):
        checkpoints.save(*mine, RunState(step, 0, 0.1, None), IDENTITY)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000003", "step-000010"]


def test_another_model_or_a_broken_file_is_refused(folder, tmp_path):
    mine = parts(folder)
    saved = CheckpointFolder(tmp_path / "checkpoints", 2).save(*mine, RunState(1, 0, 0.1, None), IDENTITY)
    untied = parts(make_tiny_policy(tmp_path / "untied", seed=0, tied=False))
    before = copy.deepcopy(untied[0].state_dict())
    with pytest.raises(CheckpointRefused, match="another model"):
        restore(saved, *untied)
    assert all(torch.equal(tensor, before[name]) for name, tensor in untied[0].state_dict().items())


def damage(folder, name):
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)


@pytest.mark.parametrize("name", ["model.safetensors", "trainer.pt", "state.json", "checksums.json"])
def test_a_damaged_newest_one_is_named_and_the_one_before_is_used(folder, tmp_path, caplog, name):
    mine = parts(folder)
    checkpoints = CheckpointFolder(tmp_path, 2)
    for step in (1, 2):
        learn(*mine)
        checkpoints.save(*mine, RunState(step, 0, 0.1, None), IDENTITY)
    damage(tmp_path / "step-000002", name)
    assert checkpoints.restore(*mine).state.step == 1
    assert "step-000002 is damaged" in caplog.text
    assert "going on from step-000001" in caplog.text
    learn(*mine)
    checkpoints.save(*mine, RunState(2, 0, 0.1, None), IDENTITY)
    assert sorted(os.listdir(tmp_path)) == ["damaged-step-000002", "step-000001", "step-000002"]
    assert checkpoints.restore(*mine).state.step == 2


def test_where_no_checkpoint_is_whole_the_run_does_not_begin_anew(folder, tmp_path):
    mine = parts(folder)
    checkpoints = CheckpointFolder(tmp_path, 2)
    assert checkpoints.restore(*mine) is None
    saved = checkpoints.save(*mine, RunState(1, 0, 0.1, None), IDENTITY)
    (saved / "trainer.pt").unlink()
    with pytest.raises(CheckpointDamaged, match="no checkpoint is whole"):
        checkpoints.restore(*mine)
    assert saved.exists()


def begin(out, run_id="", **more):
    return identity.begin(PPOConfig(out=out, policy="p", prompts="q", run_id=run_id, **more))


def test_starts_are_counted(tmp_path):
    out = tmp_path / "run"
    first = begin(out)
    assert first.incarnation == 1
    assert first.run_id
    (out / "checkpoints" / "step-000001").mkdir(parents=True)
    second = begin(out, resume=True)
    assert (second.run_id, second.incarnation) == (first.run_id, 2)
    with pytest.raises(CheckpointRefused, match="--resume"):
        begin(out)
    with pytest.raises(CheckpointRefused, match="not other"):
        begin(out, "other", resume=True)
    assert begin(tmp_path / "new", "named", resume=True) == identity.RunStart("named", 1)
    (out / "run.json").write_text("{")
    with pytest.raises(CheckpointRefused, match="cannot be read"):
        begin(out, resume=True)


def test_a_start_that_learnt_nothing_stands_in_nobodys_way(tmp_path):
    first = begin(tmp_path)
    again = begin(tmp_path, ppo=PPOGroup(kl_coef=0.5))
    assert (again.run_id, again.incarnation) == (first.run_id, 2)  # what the first one published stays below it
    assert begin(tmp_path, "named") == identity.RunStart("named", 1)


def test_a_run_goes_on_with_its_own_settings_alone(tmp_path):
    begin(tmp_path)
    (tmp_path / "checkpoints" / "step-000001").mkdir(parents=True)
    changed = {"resume": True, "ppo": PPOGroup(kl_coef=0.5, lam=0.9), "sampling": SamplingGroup(temperature=0.5)}
    with pytest.raises(CheckpointRefused) as raised:
        begin(tmp_path, **changed)
    told = str(raised.value)
    assert "ppo.kl_coef (was 0.05, is 0.5), ppo.lam (was 0.95, is 0.9), sampling.temperature (was 1.0, is 0.5)" in told
    assert "vf_coef" not in told
    free = {"services": ServicesGroup(reward="elsewhere:1"), "record": RecordGroup(samples=1), "total_steps": 9}
    assert begin(tmp_path, resume=True, ppo=PPOGroup(microbatch_size=3), **free).incarnation == 2
    (tmp_path / "settings.json").unlink()
    with pytest.raises(CheckpointRefused, match=r"settings\.json cannot be read"):
        begin(tmp_path, resume=True)
