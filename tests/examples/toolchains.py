"""What the examples in other languages need on this machine; without it, each function skips the test with a reason."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / "examples" / "clients"
JAVA_JARS = ("grpc-netty", "protobuf", "netty-codec-http2", "perfmark-api", "geronimo-annotation-1.3-spec")


def need(*programs: str) -> None:
    """Skips the test where a program is not installed."""
    if missing := [program for program in programs if shutil.which(program) is None]:
        pytest.skip(f"not installed here: {', '.join(missing)}")


def need_java() -> None:
    """Skips the test where a program or a jar of the Java example is missing."""
    need("java", "javac", "protoc", "grpc_java_plugin", "bash")
    if missing := [jar for jar in JAVA_JARS if not Path(f"/usr/share/java/{jar}.jar").is_file()]:
        pytest.skip(f"not in /usr/share/java: {', '.join(missing)}")


def npm_folder(source: Path, work: Path) -> Path:
    """A folder with `source`'s package.json and its packages: `source` itself, or a copy for which npm fetches them."""
    if (source / "node_modules").is_dir():
        return source
    need("npm")
    work.mkdir(parents=True, exist_ok=True)
    for file in source.glob("package*.json"):
        shutil.copy(file, work)
    command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--fetch-retries=0", "--fetch-timeout=10000"]
    try:
        done = subprocess.run(command, cwd=work, capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{source} has no node_modules, and npm did not answer in time")
    if done.returncode:
        pytest.skip(f"{source} has no node_modules, and npm cannot install them: {done.stderr.strip()[-200:]}")
    return work


def node_client(work: Path) -> Path:
    """client.mjs beside its packages, and with protos/ where it looks for it."""
    need("node")
    source, copy = CLIENTS / "node", work / "examples" / "clients" / "node"
    folder = npm_folder(source, copy)
    if folder == copy:
        shutil.copy(source / "client.mjs", copy)
        if not (work / "protos").exists():
            (work / "protos").symlink_to(ROOT / "protos")
    return folder / "client.mjs"


def buf(work: Path) -> Path:
    """The `buf` program."""
    need("node", "bash")
    return npm_folder(ROOT, work) / "node_modules" / ".bin" / "buf"


def java_build(work: Path) -> Path:
    """The folder that build.sh made of the Java client."""
    need_java()
    out = work / "build"
    subprocess.run([CLIENTS / "java" / "build.sh", out], check=True, timeout=240)
    return out


def triton_python() -> Path:
    """The Python of the environment that has `tritonclient`; it wants an older protobuf than we may have."""
    python = ROOT / ".venv-triton" / "bin" / "python"
    if not python.is_file():
        pytest.skip("no .venv-triton with tritonclient; `make triton-env` makes it")
    return python
