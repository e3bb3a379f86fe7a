"""`palate audit-policy` through a real policy service, and from a folder."""

import json

import pytest
from typer.testing import CliRunner

from benchmarks.ports import free_port
from palate.audit.policy.answers import CHUNK, Manner, answer
from palate.audit.policy.behaviours import questions
from palate.audit.policy.builtin import builtin_behaviours
from palate.audit.policy.command import app
from palate.client import PolicyClient, SamplingParams
from palate.local_server import local_server
from tests.expositions import series_of, value
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
    metrics = ("--metrics", tmp_path / "policy.prom")
    said = audit("--target", server.target, "--before-folder", folder, "--out", tmp_path, *metrics, *FEW)
    assert said.exit_code == 0, said.output
    found = json.loads((tmp_path / "policy-audit.json").read_text())
    assert found["ok"]
    assert found["before"]["version"]["digest"] == found["after"]["version"]["digest"]
    verbosity = found["findings"][0]
    assert (verbosity["change"]["more"], verbosity["change"]["fewer"]) == (0, 0)
    assert verbosity["after"]["value"] == verbosity["before"]["value"] > 0
    check_metrics(series_of(tmp_path / "policy.prom"), found)
    page = (tmp_path / "policy-audit.html").read_text()
    assert "capitulation" in page
    assert "<svg" in page


def check_metrics(series, found):
    """The numbers of the JSON, under their names."""
    unclear = 0
    for each in found["findings"]:
        of = {"model": found["after"]["model"], "behaviour": each["name"]}
        unit = each["unit"]
        for side in ("before", "after"):
            shown = f"palate_policy_audit_shown_{unit}"
            for end in ("low", "high"):
                assert value(series, f"{shown}_{end}", **of, side=side) == each[side][end]
            assert value(series, shown, **of, side=side) == each[side]["value"]
        assert value(series, f"palate_policy_audit_change_{unit}", **of) == each["change"]["value"]
        assert value(series, "palate_policy_audit_p_value", **of) == each["adjusted"]
        assert value(series, "palate_policy_audit_worse", **of) == each["is_worse"]
        assert value(series, "palate_policy_audit_trials", **of) == each["trials"] - each["unclear"]
        unclear += value(series, "palate_policy_audit_unclear_trials", **of)
    assert unclear == sum(each["unclear"] for each in found["findings"])
    infos = {dict(labels)["side"]: dict(labels) for name, labels in series if name == "palate_policy_audit_info"}
    assert all(infos[side]["digest"] == found[side]["version"]["digest"] for side in ("before", "after"))


def test_everything_is_asked_of_one_policy(server, tmp_path):
    metrics = ("--metrics", tmp_path / "policy.prom")
    said = audit("--target", server.target, "--out", tmp_path, "--max-new-tokens", 4, *metrics)
    assert said.exit_code == 0, said.output
    found = json.loads((tmp_path / "policy-audit.json").read_text())
    assert [each["name"] for each in found["findings"]] == [each.name for each in builtin_behaviours()]
    assert all(each["trials"] >= 60 for each in found["findings"])
    assert all(each["change"] is None for each in found["findings"])
    names = {name for name, _ in series_of(tmp_path / "policy.prom")}
    assert "palate_policy_audit_shown_share" in names
    assert not any("change" in name or name.endswith(("worse", "p_value")) for name in names)  # none, and never 0


def test_what_cannot_be_done_is_said(tmp_path, server):
    said = audit("--target", server.target, "--metrics", tmp_path / "policy.txt")
    assert (said.exit_code, "end in .prom" in said.output) == (STOPPED, True), said.output
    said = audit("--target", server.target, "--metrics", tmp_path / "nowhere" / "policy.prom")
    assert (said.exit_code, "does not exist" in said.output) == (STOPPED, True), said.output
    assert "give either" in audit("--out", tmp_path).output
    said = audit("--folder", tmp_path, "--out", tmp_path / "out")
    assert said.exit_code == STOPPED
    assert "config.json" in said.output
    assert "there is no behaviour" in audit("--target", server.target, "--behaviour", "kindness").output
    said = audit("--target", "127.0.0.1:1", "--timeout", "1", "--wait", "0", "--out", tmp_path / "out")
    assert said.exit_code == STOPPED


def test_what_is_in_the_way_of_the_report_is_told_before_anything_is_drawn(tmp_path):
    (tmp_path / "file").write_text("here already")
    (tmp_path / "out" / "policy-audit.json").mkdir(parents=True)
    for out, named in ((tmp_path / "file", "file"), (tmp_path / "out", "policy-audit.json")):
        said = audit("--target", "127.0.0.1:1", "--wait", "0", "--out", out)  # nobody is there, and nobody is asked
        assert (said.exit_code, f"{named} cannot be written" in said.output) == (STOPPED, True), said.output


def test_a_full_disk_is_told_with_file_and_remedy_after_what_was_found(server, tmp_path):
    (tmp_path / "policy-audit.json").symlink_to("/dev/full")
    said = audit("--target", server.target, "--out", tmp_path, *FEW)
    assert said.exit_code == STOPPED
    assert f"{tmp_path}/policy-audit.json cannot be written: the disk is full; free some space" in said.output
    assert "verbosity" in said.output


class Noting(PolicyClient):
    """Notes which weights are insisted on."""

    def generate(self, *args, **options):
        """As ever."""
        self.wanted = [*getattr(self, "wanted", []), options["required_policy_version"]]
        return super().generate(*args, **options)


def test_a_restart_between_two_calls_changes_no_answer_and_the_weights_are_insisted_on(folder, server):
    asked = questions(builtin_behaviours())[: 2 * CHUNK]
    manner = Manner(SamplingParams(temperature=0.7, max_new_tokens=4), 0, chat=False)
    command = ["-m", "services.policy", "--model", str(folder), "--threads", "1", "--drain-delay-seconds", "0"]
    port, running = free_port(), []

    def start():
        running.append(local_server([*command, "--frozen"], port=port))
        return running[-1].__enter__().target

    def restart(more):
        if len(running) == 1:
            running[0].__exit__(None, None, None)
            start()

    try:
        with Noting(start(), timeout=30.0) as policy:
            answers = answer(policy, asked, manner, restart)
            assert set(policy.wanted) == {policy.policy_info().policy_version}
    finally:
        running[-1].__exit__(None, None, None)
    assert len(running) == 2
    with PolicyClient(server.target, timeout=30.0) as policy:
        assert answer(policy, asked, manner) == answers
