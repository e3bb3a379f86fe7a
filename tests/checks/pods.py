"""A Deployment's pod as podman takes it, what is seen of it from outside, and how it ends."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.checks.containers import Containers

CONTAINER = "server"


@dataclass(frozen=True, slots=True)
class Ports:
    """Free ones of this machine: pods share its network here."""

    grpc: int
    health: int
    metrics: int

    @classmethod
    def free(cls) -> Ports:
        """Three that nobody listens on now."""
        with socket.socket() as one, socket.socket() as two, socket.socket() as three:
            for each in (one, two, three):
                each.bind(("127.0.0.1", 0))
            return cls(*(each.getsockname()[1] for each in (one, two, three)))


def manifests(path: Path) -> list[dict[str, Any]]:
    """What kustomize makes of a folder."""
    done = subprocess.run(["kubectl", "kustomize", str(path)], capture_output=True, text=True, check=True, timeout=120)
    return list(yaml.safe_load_all(done.stdout))


def pod_of(documents: Sequence[Mapping[str, Any]], deployment: str, image: str, ports: Ports) -> str:
    """A Deployment's pod with its ConfigMap, as YAML.

    Its spec is the manifest's, but for what podman has no part in (account, spreading) and what differs here: the
    machine's network and free ports, an image of the local storage.

    Args:
        documents: What kustomize made.
        deployment: Name of the Deployment.
        image: What runs in it.
        ports: In place of the manifest's.
    """
    by_name = {(each["kind"], each["metadata"]["name"]): each for each in documents}
    template = by_name["Deployment", deployment]["spec"]["template"]
    spec = {key: value for key, value in template["spec"].items() if key not in _NOT_PODMANS}
    (container,) = spec["containers"]
    (source,) = container["envFrom"]
    settings = by_name["ConfigMap", source["configMapRef"]["name"]]
    prefix = next(key for key in settings["data"] if key.endswith("_HEALTH_PORT")).removesuffix("_HEALTH_PORT")
    told = {"PORT": ports.grpc, "HEALTH_PORT": ports.health, "METRICS_PORT": ports.metrics}
    data = {**settings["data"], **{f"{prefix}_{key}": str(value) for key, value in told.items()}}
    container = {key: value for key, value in container.items() if key != "ports"}
    container |= {"image": image, "imagePullPolicy": "Never"}
    pod = {"hostNetwork": True, **spec, "containers": [container]}
    return yaml.safe_dump_all(
        [
            _named("ConfigMap", settings["metadata"]["name"], data=data),
            _named("Pod", deployment, spec=pod),
        ]
    )


def memory_of(pod: str) -> int:
    """Bytes that a pod's container may have, by its YAML."""
    *_, document = yaml.safe_load_all(pod)
    limit = document["spec"]["containers"][0]["resources"]["limits"]["memory"]
    return int(limit.removesuffix("Gi")) * 2**30


_NOT_PODMANS = {"serviceAccountName", "topologySpreadConstraints"}


def _named(kind: str, name: str, **rest: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, **rest}


def confinement(containers: Containers, container: str) -> dict[str, Any]:
    """What the kernel says of a container's first process, and what it may write."""
    process = containers.inspect(container)["State"]["Pid"]
    lines = (line.partition(":") for line in Path(f"/proc/{process}/status").read_text().splitlines())
    status = {key: value.split() for key, _, value in lines}
    probe = "for f in / /opt/palate /models /tmp; do touch $f/probe 2>/dev/null && echo $f; done; true"
    return {
        "command": Path(f"/proc/{process}/cmdline").read_text().split("\0")[0],
        "uid": int(status["Uid"][1]),
        "capabilities": int(status["CapEff"][0], 16) | int(status["CapBnd"][0], 16),
        "no_new_privileges": status["NoNewPrivs"] == ["1"],
        "seccomp": status["Seccomp"] == ["2"],
        "memory": memory_limit(process),
        "writable": containers.run("podman", "exec", container, "sh", "-c", probe).split(),
    }


def memory_limit(process: int) -> int:
    """Bytes that the cgroup of a process may hold, in either version of cgroups."""
    groups = {}
    for line in Path(f"/proc/{process}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        groups[controllers] = path
    if "memory" in groups:
        return int(Path(f"/sys/fs/cgroup/memory{groups['memory']}/memory.limit_in_bytes").read_text())
    return int(Path(f"/sys/fs/cgroup{groups['']}/memory.max").read_text())
