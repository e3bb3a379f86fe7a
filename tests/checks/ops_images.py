"""The reward service's image, built and run as the manifests say: `python -m tests.checks.ops_images`; no cluster.

Two pods are started by `podman play kube` from what kustomize makes: the local overlay's, with a model inside the
image, and production's, with Secrets, certificates both ways and a mounted model. Each must be confined as its manifest
says, answer health on the plaintext port, serve a score, go on answering while it drains, and end with exit code 0.
"""

from __future__ import annotations

import argparse
import base64
import json
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rich.console import Console
from rich.table import Table

from benchmarks.protected import make_protection
from palate.client import ChannelOptions, RewardClient
from palate.models.export import export
from tests.checks.containers import BASE, ROOT, Containers, missing
from tests.checks.pods import CONTAINER, Ports, confinement, manifests, memory_of, pod_of
from tests.tiny_models import make_tiny_reward

SERVICE = "palate.v1.RewardService"
IMAGE = "localhost/palate-services-cpu:check"
LOCAL_IMAGE = "localhost/palate-local-reward:check"
DEPLOYMENT = "palate-reward"
_SERVING = health_pb2.HealthCheckResponse.SERVING
_SECONDS = 300.0
"""A pod that is not ready, or not gone, by then has failed."""


def main() -> None:
    """Exit code 0 where all holds, or where the tools are not there, which is said."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "checks" / "ops_images")
    parser.add_argument("--json", type=Path, default=None, help="file for the figures")
    arguments = parser.parse_args()
    if reason := missing():
        print(f"skipped: {reason}")
        return
    figures = check(Containers(arguments.folder))
    show(figures)
    if arguments.json is not None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    if figures["wrong"]:
        sys.exit("\n".join(figures["wrong"]))


def check(containers: Containers) -> dict[str, Any]:
    """Builds, runs, and says what was seen; "wrong" lists what should have been otherwise."""
    with tempfile.TemporaryDirectory(prefix="palate-check-") as name:
        folder = Path(name)
        served = export(make_tiny_reward(folder / "checkpoint", "encoder", 0), folder / "context" / "reward").path
        figures = build(containers, served.parent)
        figures["wrong"] = []
        for title, run in {"overlays/local": local_pod, "overlays/prod": production_pod}.items():
            seen = run(containers, served, folder)
            figures[title] = seen
            figures["wrong"] += [f"{title}: {problem}" for problem in problems(seen)]
    return figures


def build(containers: Containers, models: Path) -> dict[str, Any]:
    """The image of k8s/images/services-cpu.Dockerfile, and the one with a model inside; sizes and seconds."""
    containers.make_base()
    containers.fetch_wheels("cpu,serve,otel")
    begin = time.monotonic()
    containers.build("services-cpu.Dockerfile", IMAGE)
    seconds = time.monotonic() - begin
    containers.build("models.Dockerfile", LOCAL_IMAGE, models, IMAGE=IMAGE)
    size, base = (containers.inspect(image, "image")["Size"] for image in (IMAGE, BASE))
    return {"build_seconds": seconds, "image_bytes": size, "of_which_base_bytes": base}


def local_pod(containers: Containers, served: Path, folder: Path) -> dict[str, Any]:
    """The pod of overlays/local."""
    ports = Ports.free()
    documents = manifests(ROOT / "k8s" / "overlays" / "local")
    pod = pod_of(documents, DEPLOYMENT, LOCAL_IMAGE, ports)
    return lived(containers, pod, folder, ports, ChannelOptions())


def production_pod(containers: Containers, served: Path, folder: Path) -> dict[str, Any]:
    """The pod of overlays/prod: identities are the overlay's, certificates of an authority of this check."""
    ports = Ports.free()
    documents = manifests(ROOT / "k8s" / "overlays" / "prod")
    protection = make_protection(folder)
    (identities,) = (each["data"] for each in documents if each["kind"] == "Secret")
    containers.make_secret(
        "palate-identities", {key: base64.b64decode(value).decode() for key, value in identities.items()}
    )
    pairs = {"tls.crt": "cert.pem", "tls.key": "key.pem", "ca.crt": "ca.pem"}
    containers.make_secret("palate-reward-tls", {key: (folder / file).read_text() for key, file in pairs.items()})
    volume = containers.make_volume("palate-models")
    shutil.copytree(served, volume / "reward", dirs_exist_ok=True)
    pod = pod_of(documents, DEPLOYMENT, IMAGE, ports)
    return lived(containers, pod, folder, ports, ChannelOptions(tls=protection.mutual_tls_of("palate-trainer")))


def lived(containers: Containers, pod: str, folder: Path, ports: Ports, options: ChannelOptions) -> dict[str, Any]:
    """The life of a pod: started, asked, looked at from outside, and stopped while it is called."""
    name = f"{DEPLOYMENT}-{CONTAINER}"
    with played(containers, pod, folder / "pod.yaml"):
        begin = time.monotonic()
        wait_for(ports.health, SERVICE, serving=True, why=lambda: containers.logs(name))
        seen = {"ready_seconds": time.monotonic() - begin, **confinement(containers, name)}
        seen["memory_wanted"] = memory_of(pod)
        seen["live"] = health(ports.health, "live") == _SERVING
        with RewardClient(f"127.0.0.1:{ports.grpc}", options=options) as client:
            reply = client.score(["What do you think?"], ["Work out the cost per loaf first."])
            seen["scored"] = len(reply.scores()) == 1
            seen["engine"] = reply.provenance.engine
            seen |= drained(containers, name, ports, client)
    return seen


def drained(containers: Containers, name: str, ports: Ports, client: RewardClient) -> dict[str, Any]:
    """What is seen of a container that is told to end: NOT_SERVING, an answer nevertheless, and exit code 0."""
    grace = "50"
    begin = time.monotonic()
    stopping = threading.Thread(target=containers.run, args=("podman", "stop", "--time", grace, name))
    stopping.start()
    wait_for(ports.health, SERVICE, serving=False, why=lambda: containers.logs(name))
    late = client.score(["What do you think?"], ["Of the loaf?"]).scores()
    stopping.join()
    return {
        "answered_while_draining": len(late) == 1,
        "stop_seconds": time.monotonic() - begin,
        "exit_code": containers.inspect(name)["State"]["ExitCode"],
    }


@contextmanager
def played(containers: Containers, pod: str, file: Path) -> Iterator[None]:
    """A pod, which is gone afterwards with all that it brought."""
    file.write_text(pod)
    containers.run("podman", "play", "kube", file)
    try:
        yield
    finally:
        containers.run("podman", "play", "kube", "--down", file, check=False)


def wait_for(port: int, service: str, *, serving: bool, why: Any) -> None:
    """Returns once the health of a service is as wanted; SystemExit with the log where that takes too long."""
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end:
        if (health(port, service) == _SERVING) is serving:
            return
        time.sleep(0.05)
    raise SystemExit(f"{service} has not become {'ready' if serving else 'unready'}:\n{why()}")


def health(port: int, service: str) -> int | None:
    """What the plaintext health port says, as the kubelet would ask; None where nobody answers."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            return int(
                health_pb2_grpc.HealthStub(channel)
                .Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
                .status
            )
        except grpc.RpcError:
            return None


def problems(seen: Mapping[str, Any]) -> list[str]:
    """What is not as the manifest says."""
    wanted = {
        "uid": 10001,
        "capabilities": 0,
        "no_new_privileges": True,
        "seccomp": True,
        "writable": ["/tmp"],
        "live": True,
        "scored": True,
        "engine": "onnx",
        "answered_while_draining": True,
        "exit_code": 0,
    }
    found = [f"{key} is {seen[key]}, not {value}" for key, value in wanted.items() if seen[key] != value]
    if not seen["command"].endswith("/python"):
        found.append(f"the first process is {seen['command']}, not Python")
    if seen["memory"] != seen["memory_wanted"]:
        found.append(f"the memory limit is {seen['memory']}, not {seen['memory_wanted']}")
    return found


def show(figures: Mapping[str, Any]) -> None:
    """Prints a table."""
    table = Table("what", *(title for title in figures if title.startswith("overlays/")))
    pods = [seen for title, seen in figures.items() if title.startswith("overlays/")]
    for key in pods[0]:
        table.add_row(key, *(f"{seen[key]:.1f}" if isinstance(seen[key], float) else str(seen[key]) for seen in pods))
    console = Console()
    console.print(table)
    mib = {key: figures[key] / 2**20 for key in ("image_bytes", "of_which_base_bytes")}
    console.print(
        f"image {mib['image_bytes']:.0f} MiB, of which the base {mib['of_which_base_bytes']:.0f}; "
        f"built in {figures['build_seconds']:.0f} s"
    )


if __name__ == "__main__":
    main()
