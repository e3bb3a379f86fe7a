"""Several ranks learn what one process learns, and end together when one of them fails; real processes over gloo."""

import copy
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from palate.client import PolicyClient
from tests.tiny_models import make_tiny_policy
from tests.trainer.ppo import rank_program
from trainer.metrics import read_metrics
from trainer.ppo.build import freeze
from trainer.ppo.errors import NoTeam
from trainer.ppo.evaluate import LocalRef
from trainer.ppo.lanes import Lanes
from trainer.ppo.parallel import alone
from trainer.ppo.ranks import LeadingUpdater
from trainer.ppo.run import run_ppo
from trainer.ppo.stats import UpdateStats
from trainer.ppo.team import Team

PROGRAM = Path(__file__).with_name("rank_program.py")
CASES = [
    *("-".join([*case, "adam"]) for case in itertools.product(("ddp", "fsdp2"), ("gae", "grpo"), ("fp32", "fp64"))),
    "fsdp2-gae-fp32-adam_tf_style",
    "ddp-gae-fp32-adam-lora",
    "fsdp2-gae-fp32-adam-lora",
    "fsdp2-grpo-fp64-adam-lora",
]
TOLERANCE = {"fp32": 1e-5, "fp64": 1e-10}


def torchrun(*arguments, timeout=240):
    """Two ranks; their group of processes is gone when this returns."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=timeout, env=environment, check=False
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What two ranks and one process made of the same rollouts, by case."""
    folder = tmp_path_factory.mktemp("ranks")
    policy = make_tiny_policy(folder / "policy", seed=0)
    done = torchrun(PROGRAM, "compare", policy, folder / "found.json", *CASES)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "found.json").read_text())


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_learn_what_one_process_learns(found, case):
    report, tolerance = found[case], TOLERANCE[case.split("-")[2]]
    assert report["norms"] <= tolerance
    assert report["moments"] <= tolerance  # of the gradients, element by element
    assert report["weights"] <= tolerance
    assert report["logprobs"] <= 1e-6
    assert report["ref"] <= 1e-6
    for mine, single in report["stats"].values():
        assert mine == pytest.approx(single, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_every_rank_holds_its_part_only_under_fsdp2(found, case):
    cut = case.startswith("fsdp2")
    assert found[case]["dtensors"] is cut
    assert found[case]["local_share"] == pytest.approx(0.5 if cut else 1.0, abs=0.01)


@pytest.mark.parametrize("case", CASES)
def test_ranks_go_on_from_what_one_process_has_kept(found, case):
    assert found[case]["again"] <= TOLERANCE[case.split("-")[2]]


@pytest.mark.parametrize(
    ("how", "cause"),
    [
        ("raises", "rank 1: NotFinite: the policy gradient has norm nan"),
        ("dies", "Signal 9 (SIGKILL)"),
        ("hangs", "another rank has died or hangs"),
        ("leader", "rank 0: PublishFailed: step 3 is not published"),
    ],
)
def test_a_rank_that_fails_ends_all_and_says_why(how, cause):
    done = torchrun(PROGRAM, "fail", how, timeout=120)
    assert done.returncode != 0
    assert cause in done.stderr


@pytest.fixture
def lanes():
    threads = torch.get_num_threads()
    with Lanes(1) as lanes:
        yield lanes
    torch.set_num_threads(threads)


def test_networks_beside_the_model_are_brought_back_and_handed_out(lanes, tmp_path):
    """As a single process has them on a GPU: what is published and kept is what was learnt, to the bit."""
    model = rank_program.make_model(make_tiny_policy(tmp_path / "policy", seed=0), "gae", torch.float32)
    single, networks = copy.deepcopy(model), alone(copy.deepcopy(model))
    updater = rank_program.make_updater(model, networks, "gae", Team(), lanes, LeadingUpdater)
    alone_updater = rank_program.make_updater(single, alone(single), "gae", Team(), lanes)
    learners = [(one, LocalRef(freeze(one.model.actor), one._forward)) for one in (updater, alone_updater)]
    found, expected = (rank_program.step(*learner, "gae", torch.float32) for learner in learners)
    assert torch.equal(found["weights"], expected["weights"])
    assert torch.equal(found["moments"], expected["moments"])
    assert rank_program.restored_goes_on(*learners, "gae", torch.float32) == 0


@pytest.mark.parametrize("rows", [1, 2, 5, 9])
@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("most", [1, 3, 16])
def test_every_row_counts_on_one_rank_and_all_take_as_many_passes(rows, size, most):
    lengths = [3 + 7 * row % 5 for row in range(rows)]
    shares = [Team(rank, size).cuts(lengths, most) for rank in range(size)]
    assert sorted(row for cuts in shares for cut in cuts if cut.counts for row in cut.rows) == list(range(rows))
    assert len({len(cuts) for cuts in shares}) == 1
    assert all(1 <= len(cut.rows) <= most for cuts in shares for cut in cuts)


def test_statistics_of_ranks_add_up():
    parts = [UpdateStats(10, policy_loss=1.0, ratio_max=1.5, policy_norms=[2.0]) for _ in range(2)]
    merged = UpdateStats.merged([*parts, UpdateStats(10, ratio_max=3.0, policy_norms=[2.0])])
    assert merged == UpdateStats(10, policy_loss=2.0, ratio_max=3.0, policy_norms=[2.0])


def test_a_start_that_contradicts_the_configuration_is_refused(configure, monkeypatch):
    with pytest.raises(NoTeam, match="torchrun"):
        run_ppo(configure("--distributed", "ddp"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(NoTeam, match="--distributed ddp"):
        run_ppo(configure())


def train(config, *flags):
    """Two ranks of a run; its configuration goes through a file, JSON being YAML."""
    file = config.prompts.with_name("config.yaml")
    file.write_text(config.model_dump_json(exclude_defaults=True))
    done = torchrun("--no-python", Path(sys.executable).with_name("palate"), "train", "ppo", "--config", file, *flags)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("way", "flags"), [("ddp", ()), ("fsdp2", ()), ("fsdp2", ("--lora.rank", 4))])
def test_a_run_of_two_ranks_is_the_run_of_one_and_can_be_resumed_by_either(configure, replicas, way, flags):
    alone = run_ppo(configure(*flags, out="alone"))
    config = configure(*flags, "--distributed", way, "--total-steps", 1)
    train(config)
    train(configure(*flags, "--distributed", way), "--resume")
    rows = read_metrics(config.out)
    assert [row["step"] for row in rows] == [1, 2]
    assert rows[-1]["objective/kl"] == pytest.approx(alone.metrics["objective/kl"], rel=1e-2, abs=1e-4)
    with PolicyClient(replicas[0].target) as client:
        assert client.policy_info().policy_version.step == 2
    single = run_ppo(configure(*flags, "--total-steps", 3, "--resume"))
    assert single.steps == 3
