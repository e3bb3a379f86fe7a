"""Places where a run can be told to stand still."""

import signal
import subprocess
import sys

from palate.client import PolicyClient
from tests.checks.resume import draw_kills, stands_still
from trainer.ppo.points import POINTS, VARIABLE

PROGRAM = "import sys; from trainer.config import PPOConfig; from trainer.ppo.run import run_ppo\n"
PROGRAM += "run_ppo(PPOConfig.from_command_line(sys.argv[1:], prog='test'))"


def test_the_check_meets_every_point_in_its_twenty_kills():
    for seed in range(20):
        runs = draw_kills(20, 2, seed)
        kills = [kill for run in runs for kill in run]
        assert {kill.point for kill in kills} == set(POINTS)
        assert len(kills) == 20
        assert all(run.index(kill) == len(run) - 1 for run in runs for kill in run if kill.point == "model")


def test_a_run_stands_still_between_the_commits_of_two_replicas(configure, replicas, monkeypatch, tmp_path):
    monkeypatch.setenv(VARIABLE, "commit-others:2")  # the first is that of the starting policy
    config = configure(replica_count=2)  # the variable is not taken for a setting
    flags = [f"--config={tmp_path / 'run.yaml'}", "--no-record.progress"]
    (tmp_path / "run.yaml").write_text(config.model_dump_json())
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-c", PROGRAM, *flags], stderr=log)
    try:
        assert stands_still(process, "commit-others:2", tmp_path / "log")
        served = []
        for server in replicas:
            with PolicyClient(server.target) as client:
                served.append(client.policy_info().policy_version)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL
    assert [version.step for version in served] == [1, 0]
    assert served[0].run_id == served[1].run_id
