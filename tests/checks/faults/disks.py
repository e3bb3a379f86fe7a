"""Disks that are full or read-only, under a trainer's checkpoints and under a server's log."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from tests.checks.faults.accounting import Fate
from tests.checks.faults.callers import more, scores_of, scoring
from tests.checks.faults.case import Case, Report, Skipped
from tests.checks.faults.servers import policy_folder, reward_server
from trainer.ppo.build import build_actor_critic, load_policy
from trainer.ppo.checkpoint import CheckpointFolder
from trainer.ppo.errors import CheckpointNotWritten
from trainer.ppo.optimizer import make_optimizer
from trainer.ppo.state import RunIdentity, RunState

_DISK_MIB = 8
_IDENTITY = RunIdentity("run", 1, {}, {})


@contextmanager
def _disk(folder: Path) -> Iterator[Path]:
    """A small file system of its own."""
    place = folder / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_MIB}m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        raise Skipped("needs the right to mount a small tmpfs (root)")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def _fill(disk: Path) -> Path:
    """Takes all room; gives the file to remove."""
    rock = disk / "rock"
    with rock.open("wb", buffering=0) as stream:
        try:
            while True:
                stream.write(bytes(4096))
        except OSError:
            return rock


def _remount(disk: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], check=True)


async def checkpoints(folder: Path, report: Report) -> None:
    """A trainer's checkpoint on a full and on a read-only disk, and again when there is room."""
    with _disk(folder) as disk:
        await asyncio.to_thread(_save_and_restore, disk, report)


def _save_and_restore(disk: Path, report: Report) -> None:
    _, renderer = load_policy(policy_folder())
    model = build_actor_critic(policy_folder(), "policy", renderer)
    parts = model, make_optimizer("adam", model.parameter_groups(1e-3, 1e-3), eps=1e-5), torch.Generator()
    runs = CheckpointFolder(disk / "checkpoints", 2)

    def refused(step: int) -> None:
        try:
            runs.save(*parts, RunState(step, 0, 0.1, None), _IDENTITY)
        except CheckpointNotWritten as error:
            report.facts[f"checkpoint {step}"] = str(error).replace(str(disk), "")[:120]
        else:
            report.expect(False, f"checkpoint {step} was written where it could not be")
        restored = runs.restore(*parts)
        report.expect(restored is not None and restored.state.step == 1, f"no going back after checkpoint {step}")

    runs.save(*parts, RunState(1, 0, 0.1, None), _IDENTITY)
    rock = _fill(disk)
    refused(2)
    rock.unlink()
    with (disk / "rock").open("wb") as stream:  # room for the weights, none for what comes after them
        free = subprocess.run(["df", "-B1", "--output=avail", str(disk)], capture_output=True, check=True).stdout
        stream.write(bytes(max(0, int(free.split()[-1]) - 200_000)))
    refused(3)
    (disk / "rock").unlink()
    _remount(disk, "ro")
    refused(4)
    _remount(disk, "rw")
    report.expect(not list((disk / "checkpoints").glob(".draft-*")), "half a checkpoint is left")
    runs.save(*parts, RunState(5, 0, 0.1, None), _IDENTITY)
    restored = runs.restore(*parts)
    report.expect(restored is not None and restored.state.step == 5, "no checkpoint once there is room again")


async def log_on_a_full_disk(folder: Path, report: Report) -> None:
    """A server that cannot write its log any more, at the most talkative level."""
    with _disk(folder) as disk:
        async with reward_server(disk, "--log-level", "DEBUG") as reward:
            right, ledger = await scores_of(reward.target), report.ledger("Score")
            async with scoring(reward.target, ledger, right, callers=8, seconds=30.0):
                await more(ledger, 50)
                rock = _fill(disk)
                await more(ledger, 200)
                rock.unlink()
                await more(ledger, 50)
            report.expect(ledger.ended[Fate.ANSWERED] == ledger.made, f"callers were not answered: {ledger.told()}")
            report.expect(not reward.ended, "the server ended")
        report.expect("stopped" in reward.log.read_text(errors="replace"), "nothing is logged once there is room again")


CASES = (
    Case("checkpoint", "no room, or a read-only disk: a clear error, the checkpoint before stays and can be resumed",
         checkpoints),
    Case("log", "no room for the log: everybody is answered", log_on_a_full_disk),
)  # fmt: skip
