"""`palate audit` through real servers, by both protocols, from a folder, and through a restart in the middle."""

import json
from collections import Counter
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from benchmarks.ports import free_port
from palate.audit.ask import ask, in_turn
from palate.audit.command import _asked, app
from palate.audit.items import Item, Measure, Probe, Text
from palate.audit.out import AuditScores, OutProblem
from palate.audit.probes import builtin_probes
from palate.audit.scorer import FunctionScorer
from palate.audit.subject import Server, Source, Way, opened
from palate.client import ChannelOptions, Failed, ItemErrorCode
from palate.local_server import local_server
from palate.models.manifest import load_manifest, write_manifest
from palate.oip.client import Tensors
from tests.expositions import series_of, value
from tests.servers import start_server
from tests.tiny_models import make_tiny_policy, make_tiny_reward

OUTSIDE, STOPPED = 1, 2
FAST = ("--drain-delay-seconds", "0")


def audit(*words):
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_reward(tmp_path_factory.mktemp("audited") / "tiny", "encoder", 0)


@pytest.fixture(scope="module")
def server(folder):
    with start_server("services.reward", folder, "--threads", "1", *FAST) as running:
        yield running


@pytest.fixture(scope="module")
def done(server, tmp_path_factory):
    """A whole audit, and its folder."""
    out = tmp_path_factory.mktemp("whole")
    return audit("--target", server.target, "--out", out, "--metrics", out / "audit.prom"), out


@pytest.fixture(scope="module")
def cutting(tmp_path_factory):
    """A server of a model that reads few tokens, and cuts what is longer."""
    short = make_tiny_reward(tmp_path_factory.mktemp("short") / "tiny", "encoder", 0, max_tokens=48)
    write_manifest(short, replace(load_manifest(short).manifest, truncation="right"))
    with start_server("services.reward", short, "--threads", "1", *FAST) as running:
        yield running


def way(tmp_path, batch=32):
    return Way(30.0, 0.0, batch, lambda _: None, ChannelOptions(), tmp_path)


def test_everything_is_asked_and_told(done):
    said, out = done
    assert said.exit_code in (0, OUTSIDE), said.output
    found = json.loads((out / "audit.json").read_text())
    assert found["ok"] is (said.exit_code == 0)
    assert [each["name"] for each in found["findings"]["probes"]] == [probe.name for probe in builtin_probes()]
    assert found["source"]["revision"]
    assert found["findings"]["texts"] == len(in_turn(builtin_probes()))
    for finding in found["findings"]["probes"]:
        lean = finding["leaning"]
        judged = lean["hits"] + lean["misses"] + lean["ties"]
        assert judged + sum(finding["excluded"].values()) == finding["items"] >= 60
        assert finding["adjusted"] >= finding["p"]
        assert finding["name"] in said.output
    check_metrics(series_of(out / "audit.prom"), found)
    card = (out / "audit.html").read_text()
    assert card.count("<svg") == 3
    assert "src=" not in card
    assert "Verdict" in card


def check_metrics(series, found):
    """The numbers of the JSON, under their names."""
    model = found["source"]["model"]
    info = {name: found["source"][name] for name in ("revision", "engine", "dtype")}
    assert value(series, "palate_audit_info", model=model, **info) == 1
    assert value(series, "palate_audit_score_sd", model=model) == found["findings"]["sd"]
    assert value(series, "palate_audit_breaches", model=model) == len(found["breaches"])
    for each in found["findings"]["probes"]:
        of = {"model": model, "probe": each["name"]}
        assert value(series, "palate_audit_share", **of) == each["share"]["value"]
        assert value(series, "palate_audit_share_low", **of) == each["share"]["low"]
        assert value(series, "palate_audit_effect", **of) == each["leaning"]["effect"]
        assert value(series, "palate_audit_p_value", **of) == each["adjusted"]
        assert value(series, "palate_audit_flagged", **of) == each["is_flagged"]
        assert value(series, "palate_audit_items", **of) == each["items"]
        assert value(series, "palate_audit_excluded_items", **of) == sum(each["excluded"].values())


def test_what_is_kept_is_not_asked_again(done, server):
    _, out = done
    (kept,) = (out / "scores").iterdir()
    before, findings = kept.read_bytes(), json.loads((out / "audit.json").read_text())["findings"]
    assert not any(text in before.decode() for text in ("Why", "answer"))
    again = audit("--target", server.target, "--out", out)
    assert kept.read_bytes() == before
    assert json.loads((out / "audit.json").read_text())["findings"] == findings
    assert again.exit_code in (0, OUTSIDE)


def test_the_other_protocol_finds_the_same(done, server, tmp_path):
    said = audit("--target", server.target, "--protocol", "oip", "--out", tmp_path, "--probe", "accuracy")
    assert said.exit_code in (0, OUTSIDE), said.output
    ours, theirs = (json.loads((out / "audit.json").read_text()) for out in (done[1], tmp_path))
    assert theirs["source"]["revision"] == ours["source"]["revision"]
    (finding,) = theirs["findings"]["probes"]
    expected = ours["findings"]["probes"][0]
    assert finding["leaning"]["hits"] == expected["leaning"]["hits"]
    assert finding["leaning"]["effect"] == pytest.approx(expected["leaning"]["effect"], abs=1e-4)


def test_a_folder_is_served_meanwhile(folder, done, tmp_path):
    said = audit("--folder", folder, "--out", tmp_path, "--probe", "accuracy", "--probe", "position")
    assert said.exit_code in (0, OUTSIDE), said.output
    found = json.loads((tmp_path / "audit.json").read_text())["findings"]
    assert [each["name"] for each in found["probes"]] == ["accuracy", "position"]
    assert found["sd"] == pytest.approx(json.loads((done[1] / "audit.json").read_text())["findings"]["sd"], rel=1e-4)
    assert found["probes"][1]["leaning"]["hits"] == 0


@pytest.mark.parametrize("protocol", [None, Tensors()])
def test_a_restart_in_the_middle_loses_nothing_and_asks_nothing_twice(folder, tmp_path, protocol):
    port = free_port()
    command = ["-m", "services.reward", "--model", str(folder), "--engine", "fake", *FAST]
    probes = [probe for probe in builtin_probes() if probe.name in ("accuracy", "position")]
    added = Counter()

    class Kept:
        def get(self, key):
            return None

        def is_cut(self, key):
            return False

        def add(self, scores, cut=()):
            added.update(scores.keys())

    running = [local_server(command, port=port)]
    first = running[0].__enter__()
    try:

        def restart(more):
            if more and len(running) == 1:
                running[0].__exit__(None, None, None)
                running.append(local_server(command, port=port))
                running[1].__enter__()

        with opened(Server(first.target, tensors=protocol), way(tmp_path)) as (scorer, _):
            answers = ask(scorer, probes, Kept(), restart)
    finally:
        running[-1].__exit__(None, None, None)
    assert len(running) == 2
    assert all(isinstance(answer, float) for answer in answers.values())
    assert set(added.values()) == {1}
    assert len(added) == len(answers) == len(in_turn(probes))


@pytest.mark.parametrize("protocol", [None, Tensors()])
def test_a_text_without_a_score_is_an_exclusion_and_no_number(server, tmp_path, protocol):
    texts = (Text("q", "fine"), Text("q", "\0 not a text"), Text("q", "also fine"))
    probe = Probe("odd", "is odd", Measure.PAIR, "greater", (Item(texts[:2]), Item(texts[1:])))
    with opened(Server(server.target, tensors=protocol), way(tmp_path)) as (scorer, _):
        answers = ask(scorer, [probe], None, lambda _: None)
    failed = answers[texts[1]]
    assert isinstance(failed, Failed)
    assert failed.code is ItemErrorCode.INVALID
    assert isinstance(answers[texts[0]], float)
    assert isinstance(answers[texts[2]], float)


def test_a_text_beyond_a_request_is_an_exclusion(server, tmp_path):
    huge = Text("q", "word " * 2_000_000)
    probe = Probe("huge", "is huge", Measure.PAIR, "greater", (Item((huge, Text("q", "small"))),))
    with opened(Server(server.target), way(tmp_path)) as (scorer, _):
        answers = ask(scorer, [probe], None, lambda _: None)
    assert isinstance(answers[huge], Failed)
    assert isinstance(answers[Text("q", "small")], float)


def test_a_set_and_a_gate(server, tmp_path):
    rows = [{"prompt": f"q{i}", "chosen": "a plan", "rejected": "the costs come", "subset": "all"} for i in range(40)]
    data, gate, out = tmp_path / "mine.jsonl", tmp_path / "policy.yaml", tmp_path / "out"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def share(limits, code):
        gate.write_text(f"probes:\n  pairs:mine: {{flagged: allow{limits}}}\n")
        asked = ("--target", server.target, "--probe", "none", "--data", data, "--gate", gate, "--out", out)
        said = audit(*asked)
        assert said.exit_code == code, said.output
        return json.loads((out / "audit.json").read_text())["findings"]["probes"][0]["share"]

    allowed = share("", 0)
    beyond = ", max_share: 0.0" if allowed["value"] > 0 else ", min_share: 1.0"
    assert share(beyond, OUTSIDE) == allowed


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give either --target"),
        (["--target", "127.0.0.1:1", "--folder", "x"], "give either --target"),
        (["--folder", "x", "--model", "y"], "go with --target"),
        (["--target", "127.0.0.1:1", "--probe", "vanity"], "there is no probe vanity"),
        (["--target", "127.0.0.1:1", "--probe", "none"], "nothing is asked"),
        (["--target", "127.0.0.1:1", "--limit", "10"], "--limit goes with --data"),
        (["--target", "127.0.0.1:1", "--tensors", "A,B,C"], "--tensors goes with --protocol oip"),
        (["--target", "127.0.0.1:1", "--protocol", "oip", "--tensors", "A,B"], "three names"),
        (["--folder", "/nowhere/at/all"], "/nowhere/at/all"),
    ],
)
def test_what_cannot_be_done_says_so_before_anything_is_asked(arguments, said, tmp_path):
    done = audit(*arguments, "--out", tmp_path / "out")
    assert done.exit_code == STOPPED
    assert said in " ".join(done.output.replace("│", " ").split())
    assert not (tmp_path / "out" / "audit.json").exists()


def test_two_sets_of_one_name_are_refused(tmp_path):
    rows = '{"prompt": "q", "chosen": "a", "rejected": "b"}\n'
    files = [tmp_path / "one" / "mine.jsonl", tmp_path / "two" / "mine.v2.jsonl"]
    for file in files:
        file.parent.mkdir()
        file.write_text(rows)
    done = audit("--target", "127.0.0.1:1", "--data", files[0], "--data", files[1], "--out", tmp_path / "out")
    assert done.exit_code == STOPPED
    assert "2 files become pairs:mine" in " ".join(done.output.replace("│", " ").split())


def test_what_is_in_the_way_of_the_report_is_told_before_anything_is_asked(server, tmp_path):
    (tmp_path / "file").write_text("here already")
    done = audit("--target", server.target, "--out", tmp_path / "file")
    assert (done.exit_code, "choose another --out" in done.output) == (STOPPED, True), done.output
    (tmp_path / "out" / "audit.html").mkdir(parents=True)
    done = audit("--target", server.target, "--out", tmp_path / "out")
    assert (done.exit_code, "choose a file" in done.output) == (STOPPED, False), done.output
    assert "audit.html cannot be written: it is a folder; remove it, or choose another --out" in done.output
    assert not (tmp_path / "out" / "scores").exists()


def test_a_full_disk_is_told_with_file_and_remedy_and_nothing_is_asked_again(server, tmp_path):
    usual = ("--target", server.target, "--out", tmp_path, "--probe", "accuracy")
    (tmp_path / "audit.json").symlink_to("/dev/full")
    done = audit(*usual)
    assert (done.exit_code, f"{tmp_path}/audit.json cannot be written: the disk is full" in done.output) == (
        STOPPED,
        True,
    )
    (tmp_path / "audit.json").unlink()
    (kept,) = (tmp_path / "scores").iterdir()
    before = kept.read_bytes()
    assert audit(*usual).exit_code in (0, OUTSIDE)
    assert kept.read_bytes() == before


def test_a_disk_that_is_full_for_scores_is_told_likewise(tmp_path):
    kept = AuditScores(tmp_path / "kept.jsonl")
    kept.path.symlink_to("/dev/full")
    with pytest.raises(OutProblem, match=r"kept\.jsonl cannot be written: the disk is full; free some space"):
        _asked(FunctionScorer(lambda prompt, completion: len(completion)), builtin_probes()[:1], kept)


def test_what_fails_while_asking_is_no_matter_of_the_scores_file(tmp_path):
    def fail(prompt, completion):
        raise error

    error = OSError(5, "of the scorer's own")
    with pytest.raises(OSError, match="of the scorer's own") as raised:
        _asked(FunctionScorer(fail), builtin_probes()[:1], AuditScores(tmp_path / "kept.jsonl"))
    assert raised.value is error


def test_scores_without_cuts_are_not_taken_for_scores_with_them():
    """A server that tells no cuts, and the one in its place that does, at the same version."""
    told = Source("model", "1", "triton", "", "127.0.0.1:1", tells_cuts=True)
    assert replace(told, tells_cuts=False).key != told.key == replace(told, endpoint="127.0.0.1:2").key


def test_a_policy_is_no_reward_model(tmp_path):
    done = audit("--folder", make_tiny_policy(tmp_path / "policy", 0), "--out", tmp_path / "out")
    assert done.exit_code == STOPPED
    assert "give the folder of a reward model" in done.output


@pytest.mark.parametrize("protocol", ["palate", "oip"])
def test_texts_that_the_model_cut_are_counted_by_both_protocols(cutting, tmp_path, protocol):
    words = ("--target", cutting.target, "--protocol", protocol, "--out", tmp_path, "--probe", "verbosity")
    counts = []
    for _ in ("asked", "kept"):
        done = audit(*words)
        assert done.exit_code in (0, OUTSIDE), done.output
        found = json.loads((tmp_path / "audit.json").read_text())
        counts.append(found["findings"]["probes"][0]["cut"])
        told = f"verbosity: {counts[-1]} of 128 texts were cut"
        assert told in done.output
        assert told in (tmp_path / "audit.html").read_text()
    assert counts[0] == counts[1] > 10
    assert found["source"]["tells_cuts"] is True


def test_another_revision_than_the_one_insisted_on_is_refused(server, tmp_path):
    for protocol in ("palate", "oip"):
        done = audit("--target", server.target, "--protocol", protocol, "--revision", "other", "--out", tmp_path)
        assert done.exit_code == STOPPED
        assert "not other; serve that one" in " ".join(done.output.split())
