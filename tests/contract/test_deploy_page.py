"""docs/deploy.md says what there is: commands with their options, manifests that parse, folders that exist."""

import re
import shlex
import tomllib
from itertools import chain
from pathlib import Path
from pkgutil import resolve_name

import click
import pytest
import typer
import yaml

from palate.command import GROUP

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


@pytest.mark.parametrize("block", [block for language, block in BLOCKS if language == "yaml"])
def test_yaml_is_yaml(block):
    assert yaml.safe_load(block)["kind"] == "Kustomization"


@pytest.mark.parametrize("path", sorted(PATHS))
def test_what_is_named_is_there(path):
    assert (ROOT / path).exists()
