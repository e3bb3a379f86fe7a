"""docs/deploy.md says what there is: commands with their options, manifests that parse, folders that exist."""

import re
import shlex
import shutil
import subprocess
import tomllib
from itertools import chain
from pathlib import Path
from pkgutil import resolve_name

import click
import pytest
import typer
import yaml

from palate.command import GROUP
from trainer.config import PPOConfig

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [
    re.split(r"[;|&>#…]", line)[0]
    for language, block in BLOCKS
    if language == "bash"
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith("palate ")
]
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][GROUP]
PATHS = {path.rstrip("./") for path in re.findall(r"k8s/[\w/.-]+", PAGE) if "run-7" not in path}
PATHS |= {path.removeprefix("../") for path in re.findall(r"\]\(\.\./([^)#:]+)", PAGE)}


def options_of(words: list[str]) -> set[str]:
    """Every option of the command that the words begin with."""
    command = typer.main.get_command(resolve_name(SCRIPTS[words[0]]))
    for word in words[1:]:
        if isinstance(command, click.Group) and word in command.commands:
            command = command.commands[word]
    return set(chain.from_iterable((*each.opts, *each.secondary_opts) for each in command.params))


def test_there_is_something_to_look_at():
    assert len(COMMANDS) >= 2
    assert len(doctor_pods()) == 1


@pytest.mark.parametrize("line", [line for line in COMMANDS if not line.startswith("palate plan")])
def test_commands_have_these_options(line):
    words = shlex.split(line)[1:]
    assert {word for word in words if word.startswith("--")} <= options_of(words)


def doctor_pods():
    """Manifests that are written out in the page."""
    found = [block for language, block in BLOCKS if language == "bash" and "<<'POD'" in block]
    return [yaml.safe_load(block.split("<<'POD'\n")[1].split("\nPOD\n")[0]) for block in found]


def test_the_doctors_pod_asks_with_options_that_there_are():
    (container,) = doctor_pods()[0]["spec"]["containers"]
    assert {word for word in container["args"] if word.startswith("--")} <= options_of(container["args"])
    mounted = {each["name"] for each in container["volumeMounts"]}
    assert mounted == {each["name"] for each in doctor_pods()[0]["spec"]["volumes"]}


def test_the_overlay_of_a_run_builds(tmp_path):
    if shutil.which("kubectl") is None:
        pytest.skip("there is no kubectl here")
    (overlay,) = (block for language, block in BLOCKS if language == "yaml")
    folder = tmp_path / "overlays" / "run-7"
    folder.mkdir(parents=True)
    (folder / "kustomization.yaml").write_text(overlay)
    shutil.copytree(ROOT / "k8s" / "components", tmp_path / "components")
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    made = {each["kind"]: each for each in yaml.safe_load_all(done.stdout)}
    assert made.keys() == {"ConfigMap", "Job"}  # no Secret, Certificate or Issuer: who may call stays as it is
    pod = made["Job"]["spec"]["template"]["spec"]
    assert made["Job"]["metadata"]["name"] == "palate-ppo-7"
    assert pod["containers"][0]["image"] == "registry.example.com/palate/trainer:0.1.0"
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["run"]["configMap"]["name"] == made["ConfigMap"]["metadata"]["name"]
    assert "out: /runs/7" in made["ConfigMap"]["data"]["run.yaml"]
    file = tmp_path / "run.yaml"
    file.write_text(made["ConfigMap"]["data"]["run.yaml"])
    read = PPOConfig.from_command_line(["--config", str(file)], "palate train ppo")
    assert read.out == Path("/runs/7")
    usual = yaml.safe_load((ROOT / "k8s" / "components" / "training" / "shared" / "run.yaml").read_text())
    assert yaml.safe_load(file.read_text()) == usual | {"out": "/runs/7"}


@pytest.mark.parametrize("path", sorted(PATHS))
def test_what_is_named_is_there(path):
    assert (ROOT / path).exists()
