"""The quickstart's table of installations is true: each part runs with what its extras bring, and nothing else."""

import os
import re
import subprocess
import sys

import pytest

from tests.extras import ROOT, distributions_of, guarded, modules_of

ROW = re.compile(r"^\| (.+) \| `pip install (?:\.|-e '\.\[([\w,]+)\]')` \|$", re.MULTILINE)
PAGE = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
PARTS = {extras: part for part, extras in ROW.findall(PAGE)}

NEEDED = {
    "": "palate.client palate.command palate.ping_command palate.doctor.command palate.bulk.commands",
    "audit": "palate.audit.command",
    "serve,cpu": "services.command services.reward.__main__ services.reward.engine_onnx",
    "train": "services.reward.__main__ services.reward.engine_torch services.policy.__main__ services.policy.service "
    "services.policy.engine_transformers trainer.command trainer.pretrain trainer.sft trainer.reward_model.train "
    "trainer.ppo.run trainer.collect",
    "train,cpu": "palate.models.export palate.models.classifier onnx onnxruntime trainer.demo.run",
}
"""What the parts of each row import, be it late."""


def test_every_row_is_looked_at():
    assert PARTS.keys() == NEEDED.keys()
    assert PAGE.count("`pip install") == len(PARTS)


@pytest.mark.parametrize("extras", NEEDED)
def test_a_part_runs_with_its_extras_alone(extras, tmp_path):
    chosen = {extra for extra in extras.split(",") if extra}
    allowed = modules_of(distributions_of(chosen)) | {"palate"} | ({"services", "trainer"} if chosen else set())
    code = "\n".join(f"import {module}" for module in NEEDED[extras].split())
    environment = os.environ | guarded(tmp_path / "guard", allowed)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr
