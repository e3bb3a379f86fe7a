"""What `kubectl kustomize` makes of overlays and of components put together, as text and as documents."""

import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
K8S = ROOT / "k8s"

OVERLAYS = {path.name: (f"overlays/{path.name}", ()) for path in sorted((K8S / "overlays").iterdir())}
COMBINATIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    **OVERLAYS,
    "namespace": ("namespace", ()),
    "base": ("base", ()),
    "base, weights-download": ("base", ("weights-download",)),
    "runs": ("runs", ()),
    "base, weights-volume, training": ("base", ("weights-volume", "training")),
    "local, monitoring": ("overlays/local", ("monitoring",)),
    "training alone": ("", ("training",)),
    "training-ranks alone": ("", ("training-ranks",)),
    "base, training, gpu, mtls": ("base", ("training", "gpu", "mtls", "mtls-trainer")),
    "base, training-ranks, gpu, mtls": ("base", ("training-ranks", "gpu", "mtls", "mtls-trainer")),
    "a run": ("", ("training", "gpu", "mtls-trainer")),
    "a run on ranks": ("", ("training-ranks", "gpu", "mtls-trainer")),
    "prod, gpu": ("overlays/prod", ("gpu",)),
    "prod, tracing": ("overlays/prod", ("tracing",)),
    "prod, model-exchange": ("overlays/prod", ("model-exchange",)),
    "local, tracing": ("overlays/local", ("tracing",)),
}
"""Name → what is built on, under k8s/, and the components that are added, in order."""
NAMESPACE = "palate"
"""What an overlay over one of ours must say as well: what a component adds is not there yet where ours says it."""
SUFFIX = "-7"
"""What overlays of runs here add to names, so that no two runs have one."""


def render(name: str) -> str:
    """The manifests of a combination, as they would be applied."""
    if shutil.which("kubectl") is None:
        pytest.skip("there is no kubectl here")
    return _render(name)


def documents(name: str) -> list[dict[str, Any]]:
    """The same, read; not to be changed."""
    return _read(render(name))


@functools.cache
def _read(text: str) -> list[dict[str, Any]]:
    return list(yaml.load_all(text, yaml.CSafeLoader))


@functools.cache
def _render(name: str) -> str:
    resource, components = COMBINATIONS[name]
    over = {"namespace": NAMESPACE} if resource.startswith("overlays/") and components else {}
    return build(resource, components, {"nameSuffix": SUFFIX} if name.startswith("a run") else over)


def build(resource: str, components: Sequence[str], more: dict[str, Any]) -> str:
    """What is made of an overlay that says this, beside what it builds on and adds."""
    with tempfile.TemporaryDirectory(prefix="palate-") as folder:
        near = Path(os.path.relpath(K8S.resolve(), Path(folder).resolve()))
        kustomization = {
            "resources": [str(near / resource)] if resource else [],
            "components": [str(near / "components" / component) for component in components],
            **more,
        }
        (Path(folder) / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr  # kustomize warns of what it will not take any more
    return done.stdout


def of_kind(name: str, *kinds: str) -> dict[str, dict[str, Any]]:
    """Documents of these kinds, by name."""
    return {document["metadata"]["name"]: document for document in documents(name) if document["kind"] in kinds}


def pod_specs(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(kind/name, spec) of every pod that a combination would make."""
    for document in documents(name):
        title = f"{document['kind']}/{document['metadata']['name']}"
        if document["kind"] in ("Deployment", "Job"):
            yield title, document["spec"]["template"]["spec"]
        if document["kind"] == "JobSet":
            for job in document["spec"]["replicatedJobs"]:
                yield f"{title}/{job['name']}", job["template"]["spec"]["template"]["spec"]


def variables(name: str, spec: dict[str, Any]) -> dict[str, str]:
    """The environment of a pod's first container: ConfigMaps it takes whole, and over them single values and keys."""
    container, maps = spec["containers"][0], of_kind(name, "ConfigMap")
    found: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        found |= maps[source["configMapRef"]["name"]]["data"]
    for entry in container.get("env", ()):
        if "value" in entry:
            found[entry["name"]] = entry["value"]
        elif key := entry["valueFrom"].get("configMapKeyRef"):
            found[entry["name"]] = maps[key["name"]]["data"][key["key"]]
    return found
