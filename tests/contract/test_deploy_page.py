"""docs/deploy.md says what there is: commands with their options, manifests that parse, folders that exist."""

import re
import shlex
import shutil
import subprocess
import tomllib
from base64 import b64decode
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
    assert COMMANDS
    assert set(pods()) == {"palate-fill", "palate-doctor"}


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_have_these_options(line):
    words = shlex.split(line)[1:]
    assert {word for word in words if word.startswith("--")} <= options_of(words)


def pods():
    """Pods that are written out in the page, by name."""
    texts = re.findall(r"<<'?POD'?\n(.*?)\nPOD\n", PAGE, re.DOTALL)
    return {pod["metadata"]["name"]: pod for pod in map(yaml.safe_load, texts)}


def test_the_doctors_pod_asks_with_options_that_there_are():
    (container,) = pods()["palate-doctor"]["spec"]["containers"]
    assert {word for word in container["args"] if word.startswith("--")} <= options_of(container["args"])


@pytest.mark.parametrize("name", ["palate-fill", "palate-doctor"])
def test_pods_of_the_page_have_no_token_and_mount_what_they_name(name):
    spec = pods()[name]["spec"]
    assert spec["automountServiceAccountToken"] is False
    mounted = {each["name"] for each in spec["containers"][0]["volumeMounts"]}
    assert mounted == {each["name"] for each in spec["volumes"]}


def test_every_command_is_given_from_the_root_with_programs_that_the_page_names():
    scripts = "".join(block for language, block in BLOCKS if language == "bash").replace("\\\n", " ")
    lines = re.sub(r"<<'?(\w+)'?\n.*?\n\1\n", "\n", scripts, flags=re.DOTALL).splitlines()
    lines = [line for line in lines if not re.match(r"\s*(export )?\w+=", line)]  # which run nothing
    programs = {re.sub(r"^(until|do|then) ", "", line.strip()).split()[0] for line in lines if line.strip()}
    named = set(re.findall(r"`(\w+)`", PAGE.split("## To a scored request")[0])) - {"kustomize"}
    shell = {"for", "done", "echo", "cat", "kill"}
    assert programs - shell <= named | {"palate"}
    assert "make" in programs


def test_the_certificates_of_the_page_are_for_the_names_of_the_services(tmp_path):
    """The page's own commands, with kubectl saying what it would make."""
    if missing := [program for program in ("kubectl", "openssl") if shutil.which(program) is None]:
        pytest.skip(f"not here: {', '.join(missing)}")

    def output(script):
        return subprocess.run(
            ["bash", "-euc", script], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True
        ).stdout

    (script,) = (block for _, block in BLOCKS if "create secret tls" in block)
    dry = output('kubectl() { command kubectl "$@" --dry-run=client -o yaml; echo ---; }\n' + script)
    made = {each["metadata"]["name"]: each for each in yaml.safe_load_all(dry) if each}
    assert set(made) == {f"{name}-tls" for name in ("palate-reward", "palate-policy", "palate-ref-policy")}
    for name in ("palate-reward", "palate-policy", "palate-ref-policy", "palate-policy-publish"):
        file = f"{name.removesuffix('-publish')}.crt"
        assert b64decode(made[file.replace(".crt", "-tls")]["data"]["tls.crt"]) == (tmp_path / file).read_bytes()
        verified = output(f"openssl verify -CAfile ca.crt -purpose sslserver -verify_hostname {name} {file}")
        assert verified == f"{file}: OK\n"


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
