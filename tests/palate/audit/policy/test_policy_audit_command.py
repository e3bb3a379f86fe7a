"""`palate audit-policy` through a real policy service, and from a folder."""

import json

import pytest
from typer.testing import CliRunner

from palate.audit.policy.builtin import builtin_behaviours
from palate.audit.policy.command import app
from tests.servers import start_server
from tests.tiny_models import make_tiny_policy

WORSE, STOPPED = 1, 2


def audit(*words):
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_policy(tmp_path_factory.mktemp("policy") / "tiny", 0)


@pytest.fixture(scope="module")
def server(folder):
    with start_server("services.policy", folder, "--threads", "1", "--drain-delay-seconds", "0") as running:
        yield running


FEW = ("--max-new-tokens", 8, "--behaviour", "verbosity", "--behaviour", "capitulation")


def test_a_policy_is_not_worse_than_itself(server, folder, tmp_path):
    said = audit("--target", server.target, "--before-folder", folder, "--out", tmp_path, *FEW)
    assert said.exit_code == 0, said.output
    found = json.loads((tmp_path / "policy-audit.json").read_text())
    assert found["ok"]
    assert found["before"]["version"]["digest"] == found["after"]["version"]["digest"]
    verbosity = found["findings"][0]
    assert (verbosity["change"]["more"], verbosity["change"]["fewer"]) == (0, 0)
    assert verbosity["after"]["value"] == verbosity["before"]["value"] > 0
    page = (tmp_path / "policy-audit.html").read_text()
    assert "capitulation" in page
    assert "<svg" in page


def test_everything_is_asked_of_one_policy(server, tmp_path):
    said = audit("--target", server.target, "--out", tmp_path, "--max-new-tokens", 4)
    assert said.exit_code == 0, said.output
    found = json.loads((tmp_path / "policy-audit.json").read_text())
    assert [each["name"] for each in found["findings"]] == [each.name for each in builtin_behaviours()]
    assert all(each["trials"] >= 60 for each in found["findings"])
    assert all(each["change"] is None for each in found["findings"])


def test_what_cannot_be_done_is_said(tmp_path, server):
    assert "give either" in audit("--out", tmp_path).output
    said = audit("--folder", tmp_path, "--out", tmp_path / "out")
    assert said.exit_code == STOPPED
    assert "config.json" in said.output
    assert "there is no behaviour" in audit("--target", server.target, "--behaviour", "kindness").output
    said = audit("--target", "127.0.0.1:1", "--timeout", "1", "--wait", "0", "--out", tmp_path / "out")
    assert said.exit_code == STOPPED
