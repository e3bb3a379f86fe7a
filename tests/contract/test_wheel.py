"""The wheel holds `palate` and nothing else."""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_wheel_holds_palate_alone(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT, check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {
        "palate",
        next(n for n in names if "dist-info" in n).split("/")[0],
    }
    assert "palate/v1/reward_service_pb2.py" in names
    assert "palate/py.typed" in names
    assert {"palate/audit/probes/facts.yaml", "palate/oip/open_inference.binpb"} <= set(names)
