"""The committed stubs and descriptors are what the protos say."""

import subprocess
import sys
from pathlib import Path

from palate.oip.messages import DESCRIPTOR_SET

ROOT = Path(__file__).parents[2]


def test_stubs_are_what_the_compiler_makes(tmp_path):
    protos = sorted(str(path) for path in (ROOT / "protos/palate/v1").glob("*.proto"))
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'protos'}", *outputs, *protos], check=True, timeout=60
    )
    made = {path.name: path.read_text() for path in (tmp_path / "palate/v1").iterdir()}
    committed = {path.name: path.read_text() for path in (ROOT / "palate/v1").glob("*_pb2*")}
    assert made == committed, "run `make protos` and commit the result"


def test_descriptors_are_what_the_compiler_makes(tmp_path):
    folder, made = ROOT / "protos/kserve", tmp_path / "made.binpb"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"-I{folder}",
            f"--descriptor_set_out={made}",
            "open_inference.proto",
        ],
        check=True,
        timeout=60,
    )
    assert made.read_bytes() == DESCRIPTOR_SET.read_bytes(), "run `make protos` and commit the result"
