"""A reward pod without torch and without a place to write: the extras `cpu` and `serve` alone, on a read-only root."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from pathlib import Path

import pytest

from palate.client import RewardClient
from palate.models.export import export
from tests.extras import distributions_of, guarded, modules_of
from tests.servers import start_server
from tests.tiny_models import make_tiny_reward

ROOT = Path(__file__).parents[2]
PROMPTS = ["What do you think of my business idea?", "", "Once upon a time"]
COMPLETIONS = ["Work out the cost first.", "A careful answer names a number.", "there was a little girl. " * 4]

READ_ONLY = """
    # Makes every mount of this namespace read-only (mount_setattr with AT_RECURSIVE), proves it, becomes the server.
    import ctypes, errno, os, sys, tempfile

    MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY = 442, -100, 0x8000, 1
    attributes = (ctypes.c_uint64 * 4)(MOUNT_ATTR_RDONLY, 0, 0, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(MOUNT_SETATTR, AT_FDCWD, b"/", AT_RECURSIVE, ctypes.byref(attributes), ctypes.sizeof(attributes)):
        sys.exit(f"cannot make the root read-only: {os.strerror(ctypes.get_errno())}")
    for folder in ("/", "/tmp", "/var/tmp", "/dev/shm", os.getcwd(), os.path.expanduser("~")):
        try:
            os.open(os.path.join(folder, "written-by-a-test"), os.O_CREAT | os.O_WRONLY)
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.ENOENT):
                raise
        else:
            sys.exit(f"{folder} can still be written to")
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reward")
    return export(make_tiny_reward(folder / "checkpoint", "encoder", 0), folder / "served").path


@pytest.fixture
def environment(tmp_path):
    """The environment of a pod: only the extras' modules can be imported, nothing points to a writable folder."""
    allowed = modules_of(distributions_of({"cpu", "serve"})) | {"palate", "services"}
    assert {"onnxruntime", "tokenizers", "jinja2", "grpc"} <= allowed
    assert not {"torch", "transformers", "onnx", "scipy", "trainer"} & allowed
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG")}
    return kept | guarded(tmp_path / "guard", allowed) | {"HOME": "/nonexistent"}


@contextmanager
def pod(command: list[str], environment: dict[str, str]):
    """The server's process and its address; ended by SIGTERM, as a pod is."""
    process = subprocess.Popen(command, env=environment, cwd="/", stderr=subprocess.PIPE, text=True)
    try:
        yield process, address(process)
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def address(process: subprocess.Popen[str]) -> str:
    """Where it listens, once it says that it is ready."""
    log = []
    for line in process.stderr:
        log.append(line)
        if ready := re.search(r"ready on (127\.0\.0\.1:\d+)", line):
            return ready[1]
    pytest.fail("the server ended before it was ready:\n" + "".join(log[-15:]))


def arguments(folder: Path) -> list[str]:
    return ["-m", "services.reward", "--model", str(folder), "--port", "0", "--metrics-port", "0", "--threads", "1"]


def check(target: str, expected: list[float]) -> None:
    """Every kind of call is answered, with the scores of PyTorch."""
    with RewardClient(target, timeout=60) as client:
        assert client.model_info().provenance.engine == "onnx"
        assert client.score(PROMPTS, COMPLETIONS).scores() == pytest.approx(expected, abs=1e-4)
        assert client.rank("Once upon a time", COMPLETIONS).order
        assert client.compare("Once upon a time", *COMPLETIONS[:2]).probability > 0
        assert client.explain("Once upon a time", COMPLETIONS[0]).token_ids


@pytest.fixture(scope="module")
def expected(served):
    with (
        start_server("services.reward", served, "--engine", "torch", "--threads", "1") as server,
        RewardClient(server.target) as client,
    ):
        return client.score(PROMPTS, COMPLETIONS).scores()


def test_the_guard_hides_what_is_installed(environment):
    for module, found in {"torch": False, "transformers": False, "scipy": False, "onnxruntime": True}.items():
        done = subprocess.run(
            [sys.executable, "-c", f"import {module}"], env=environment, capture_output=True, text=True
        )
        assert (done.returncode == 0) is found, done.stderr
        assert found or f"No module named '{module}'" in done.stderr


def test_serves_without_torch(served, environment, expected):
    with pod([sys.executable, *arguments(served)], environment) as (process, target):
        check(target, expected)
        assert "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text()


def test_serves_on_a_read_only_root(served, environment, expected, tmp_path):
    launcher = tmp_path / "read_only.py"
    launcher.write_text(textwrap.dedent(READ_ONLY))
    command = [*namespace(), sys.executable, str(launcher), *arguments(served)]
    with pod(command, environment) as (process, target):
        check(target, expected)
        mounts = Path(f"/proc/{process.pid}/mounts").read_text().splitlines()
        assert [mount for mount in mounts if "ro" not in mount.split()[3].split(",")] == []


def namespace() -> list[str]:
    """The command that gives a process mounts of its own, without privileges; skips the test where it is forbidden."""
    if shutil.which("unshare") is None:
        pytest.skip("there is no `unshare` here")
    command = ["unshare", "--user", "--map-root-user", "--mount"]
    tried = subprocess.run([*command, "true"], capture_output=True, text=True, timeout=30)
    if tried.returncode:
        pytest.skip(f"namespaces are forbidden here: {tried.stderr.strip()}")
    return command


def test_without_the_exported_file_it_says_what_to_do(served, environment, tmp_path):
    folder = shutil.copytree(served, tmp_path / "plain")
    (folder / "model.onnx").unlink()
    done = subprocess.run(
        [sys.executable, *arguments(folder)], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert "palate export" in done.stderr
    assert "Traceback" not in done.stderr
