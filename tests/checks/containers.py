"""Images and pods without a cluster and without a registry: buildah and podman over runc, in a storage of their own.

The base image is a stand-in: Debian's Python in place of python.org's, under the name that the Dockerfiles give.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
BASE = "docker.io/library/python:3.11-slim-bookworm"
TOOLS = ("buildah", "podman", "runc", "mmdebstrap", "catatonit", "kubectl")
_SECONDS = 1200.0
_MIRROR = "http://deb.debian.org/debian"

# Other defaults of podman need rights that a container host inside a container may lack.
_CONTAINERS = """
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]
log_driver = "k8s-file"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
_PIP = """
[global]
no-index = true
find-links = /wheels
"""


def missing() -> str:
    """Why images cannot be built here; empty where they can."""
    if os.geteuid() != 0:
        return "only root may build and run images here"
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    return (
        f"not installed: {', '.join(absent)} (of Debian: apt-get install --no-install-recommends ...)" if absent else ""
    )


class Containers:
    """buildah and podman with a storage in `folder`, which is kept: base image and wheels are made once.

    Args:
        folder: Holds everything.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        storage = f'[storage]\ndriver = "overlay"\ngraphroot = "{self.folder}/graph"\nrunroot = "{self.folder}/run"\n'
        files = {"storage.conf": storage, "containers.conf": _CONTAINERS, "pip.conf": _PIP}
        for name, text in files.items():
            (self.folder / name).write_text(text)
        self._environment = {
            **os.environ,
            "CONTAINERS_STORAGE_CONF": str(self.folder / "storage.conf"),
            "CONTAINERS_CONF": str(self.folder / "containers.conf"),
        }

    def run(self, *command: str | Path, check: bool = True) -> str:
        """What a command prints; SystemExit with its errors where it fails."""
        done = subprocess.run(
            [str(part) for part in command],
            capture_output=True,
            text=True,
            env=self._environment,
            timeout=_SECONDS,
            cwd=ROOT,
        )
        if check and done.returncode:
            raise SystemExit(f"{' '.join(map(str, command[:3]))} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
        return done.stdout.strip()

    def inspect(self, name: str, kind: str = "container") -> Mapping[str, Any]:
        """What podman knows of a container, an image or a pod."""
        found = json.loads(self.run("podman", kind, "inspect", name))
        return dict(found[0] if isinstance(found, list) else found)

    def logs(self, name: str) -> str:
        """The end of what a container has written."""
        return self.run("sh", "-c", 'podman logs --tail 20 "$0" 2>&1', name, check=False)

    def make_volume(self, name: str) -> Path:
        """Where the files of a named volume are, which is made anew."""
        self.run("podman", "volume", "rm", "--force", name, check=False)
        self.run("podman", "volume", "create", name)
        return Path(self.inspect(name, "volume")["Mountpoint"])

    def make_secret(self, name: str, content: Mapping[str, str]) -> None:
        """A Secret for `podman play kube`, made anew.

        podman 4.3 gives a pod what stands in `data`, and does not decode it: so plain text stands there.
        """
        self.run("podman", "secret", "rm", name, check=False)
        self.run("podman", "volume", "rm", "--force", name, check=False)  # what an earlier pod has seen of it
        file = self.folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Secret", "data": dict(content)}))
        self.run("podman", "secret", "create", name, file)
        file.unlink()

    def make_base(self) -> None:
        """The stand-in for the base image, where it is not there yet."""
        if self.run("podman", "images", "--quiet", BASE):
            return
        archive = self.folder / "base.tar"
        hook = 'ln -s /usr/bin/python3 "$1/usr/local/bin/python"; rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED'
        packages = "--include=python3,python3-venv,python3-pip,ca-certificates"
        mirror = os.environ.get("PALATE_DEBIAN_MIRROR", _MIRROR)
        self.run("mmdebstrap", "--variant=minbase", packages, f"--customize-hook={hook}", "bookworm", archive, mirror)
        self.run("podman", "import", "--change", 'CMD ["python"]', archive, BASE)
        archive.unlink()

    def fetch_wheels(self, extras: str) -> None:
        """Everything that a build installs: it has no network."""
        wheels, of_these = self.folder / "wheels", self.folder / "wheels.extras"
        if wheels.exists() and of_these.exists() and of_these.read_text() == extras:
            return
        shutil.rmtree(wheels, ignore_errors=True)
        draft = self.folder / "wheels.draft"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", draft, "--constraint"]
        self.run(*command, ROOT / "constraints.txt", f"{ROOT}[{extras}]", "hatchling>=1.27")
        draft.replace(wheels)
        of_these.write_text(extras)

    def build(self, dockerfile: str, tag: str, context: Path = ROOT, **arguments: str) -> None:
        """Builds k8s/images/`dockerfile` as it is, without a network."""
        flags = [flag for name, value in arguments.items() for flag in ("--build-arg", f"{name}={value}")]
        mounts = [f"{self.folder}/wheels:/wheels:ro", f"{self.folder}/pip.conf:/etc/pip.conf:ro"]
        for mount in mounts:
            flags += ["--volume", mount]
        hermetic = ["--runtime", "runc", "--isolation", "oci", "--network", "none", "--pull=never"]
        file = ROOT / "k8s" / "images" / dockerfile
        self.run("buildah", "bud", *hermetic, *flags, "--file", file, "--tag", tag, context)
