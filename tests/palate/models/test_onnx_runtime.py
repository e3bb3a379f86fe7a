"""ONNX Runtime begins no telemetry session where we load it."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module",
    ["palate.models.onnx_runtime", "services.reward.engine_onnx", "palate.models.export", "palate.models.quantize"],
)
def test_loading_leaves_no_session_behind(tmp_path, module):
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment["TMPDIR"] = str(tmp_path)
    subprocess.run([sys.executable, "-c", f"import {module}"], env=environment, check=True, timeout=300)
    assert list(tmp_path.iterdir()) == []
