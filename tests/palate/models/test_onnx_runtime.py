"""ONNX Runtime begins no telemetry session where we load it."""

import os
import subprocess
import sys


def test_loading_leaves_no_session_behind(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment["TMPDIR"] = str(tmp_path)
    program = "from palate.models.onnx_runtime import onnxruntime; print(onnxruntime.__version__)"
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=300)
    assert list(tmp_path.iterdir()) == []


def test_every_server_loads_it_so(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment["TMPDIR"] = str(tmp_path)
    program = "import services.reward.engine_onnx, palate.models.export, palate.models.quantize"
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=300)
    assert list(tmp_path.iterdir()) == []
