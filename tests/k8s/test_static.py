"""Manifests and Dockerfiles before schemas of three Kubernetes versions, definitions of operators, linters, checkov."""

import re
from pathlib import Path

import pytest
import yaml

from tests.k8s.rendering import COMBINATIONS, K8S, OVERLAYS, documents, render
from tests.k8s.tools import run_tool

VERSIONS = ("1.31.0", "1.33.0", "1.36.0")

ACCEPTED = {
    "CKV_K8S_11": "no CPU limit: throttling would cost latency for nothing; threads are bound to the request instead",
    "CKV_K8S_43": "images by digest: whoever pushes them has the digest; overlays/prod says how to set it",
    "CKV_K8S_15": "pull policy Always: only prod says so; images of one's own machine are in no registry",
    "CKV_K8S_14": "image tags: base names images and overlays choose the tag",
    "CKV_K8S_21": "default namespace: base and components leave the namespace to overlays",
    "CKV_K8S_35": "secrets as files: PALATE_TRAIN_SERVICES__TOKEN_FILE is the name of such a file",
    "CKV_DOCKER_2": "HEALTHCHECK: Kubernetes ignores it, and asks through gRPC",
}
"""checkov's checks that we do not satisfy, and why."""


@pytest.fixture(scope="module")
def rendered(tmp_path_factory) -> Path:
    """A folder with the manifests of every combination, one file each."""
    folder = tmp_path_factory.mktemp("manifests")
    for name in COMBINATIONS:
        (folder / f"{re.sub('[^a-z]+', '-', name)}.yaml").write_text(render(name))
    return folder


@pytest.mark.parametrize("name", COMBINATIONS)
def test_every_combination_builds(name):
    assert documents(name)


def test_every_component_is_in_a_combination():
    used = {component for _, components in COMBINATIONS.values() for component in components}
    for resource, _ in OVERLAYS.values():
        kustomization = yaml.safe_load((K8S / resource / "kustomization.yaml").read_text())
        used |= {Path(path).name for path in kustomization.get("components", ())}
    assert used == {path.name for path in (K8S / "components").iterdir() if path.is_dir()}


@pytest.mark.parametrize("version", VERSIONS)
def test_fields_and_types_are_those_of_kubernetes(rendered, version):
    done = run_tool("kubernetes-validate", "-k", version, "--strict", *sorted(rendered.glob("*.yaml")))
    assert done.returncode == 0, done.stdout + done.stderr
    unknown = set(re.findall(r"Couldn't find schema for kind (\w+)", done.stdout + done.stderr))
    assert unknown <= {"Certificate", "Issuer", "JobSet", "PodMonitor", "PrometheusRule", "ScaledObject"}


def test_a_misspelt_field_would_be_found(rendered, tmp_path):
    text = (rendered / "base.yaml").read_text()
    (tmp_path / "wrong.yaml").write_text(text.replace("readinessProbe:", "readynessProbe:"))
    done = run_tool("kubernetes-validate", "-k", VERSIONS[-1], "--strict", tmp_path / "wrong.yaml")
    assert done.returncode == 1
    assert "readynessProbe" in done.stdout + done.stderr


MISTAKES = [
    ("prod.yaml", "minReplicaCount:", "minReplicaCounts:", "minReplicaCounts is 2"),
    ("prod.yaml", "maxReplicaCount: 8", "maxReplicaCount: many", "maxReplicaCount"),
    ("prod.yaml", "scrapeTimeout: 10s", "scrapeTimeout: ten", "scrapeTimeout"),
    ("prod.yaml", "secretName: palate-reward-tls\n  usages", "secretname: palate-reward-tls\n  usages", "secretName"),
    ("training-ranks-alone.yaml", "maxRestarts:", "maxRestart:", "maxRestart is 6"),
    ("training-ranks-alone.yaml", "completions: 2", "completions: two", "completions"),
]


@pytest.fixture(scope="module")
def judged(rendered, tmp_path_factory) -> dict[str, str]:
    """What is said of the custom resources in a file, of every combination and of every mistake; "" = nothing.

    One run: the definitions take seconds to read.
    """
    folder = tmp_path_factory.mktemp("mistakes")
    for number, (file, right, wrong, _) in enumerate(MISTAKES):
        text = (rendered / file).read_text()
        assert right in text
        (folder / f"{number}.yaml").write_text(text.replace(right, wrong))
    files = [*sorted(rendered.glob("*.yaml")), *sorted(folder.glob("*.yaml"))]
    done = run_tool("python", Path(__file__).with_name("custom_resources.py"), *files)
    assert re.search(r"^\d\d+ custom resources$", done.stdout, re.MULTILINE), done.stdout + done.stderr
    parts = re.split(r"^(?=/)", done.stdout, flags=re.MULTILINE)
    return {file.name: "".join(part for part in parts if part.startswith(str(file))) for file in files}


def test_custom_resources_are_what_their_operators_define(judged, rendered):
    wrong = [judged[file.name] for file in rendered.glob("*.yaml") if judged[file.name]]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("number", range(len(MISTAKES)))
def test_a_mistake_in_a_custom_resource_would_be_found(judged, number):
    assert MISTAKES[number][-1] in judged[f"{number}.yaml"]


def test_checkov_finds_nothing_that_is_not_accepted_with_a_reason(rendered):
    folders = ["-d", rendered, "-d", K8S / "images"]
    done = run_tool(
        "checkov",
        *folders,
        *("--framework", "kubernetes", "dockerfile", "--compact", "--quiet", "--skip-download"),
        *("--skip-check", ",".join(ACCEPTED)),
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]


def test_yaml_is_tidy():
    done = run_tool("yamllint", "--strict", "--config-file", K8S / ".yamllint", K8S)
    assert done.returncode == 0, done.stdout


def test_dockerfiles_are_clean():
    done = run_tool("hadolint", *sorted((K8S / "images").glob("*.Dockerfile")))
    assert done.returncode == 0, done.stdout
