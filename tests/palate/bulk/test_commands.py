"""Files through a real reward service, by the real commands."""

import json
import subprocess
import sys

import pytest

from palate.bulk.calls import Calls
from palate.bulk.items import Columns, Limits
from palate.bulk.revision import ModelChanged, OneRevision
from palate.bulk.rows import Entry
from palate.bulk.scoring import scored_rows
from palate.client import Aggregate, MeanMinusVariance, RewardClient
from palate.local_server import local_server
from palate.models.ensemble import write_ensemble
from tests.json_lines import read_rows
from tests.servers import start_server
from tests.tiny_models import make_tiny_reward

SOME_FAILED, STOPPED = 3, 2


def palate(*arguments):
    command = [sys.executable, "-c", "from palate.command import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def told(done):
    """What a command printed for people, in one line."""
    return " ".join((done.stdout + done.stderr).replace("│", " ").split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_reward(tmp_path_factory.mktemp("reward") / "tiny", "encoder", 0)


@pytest.fixture(scope="module")
def other_folder(tmp_path_factory):
    """Another revision."""
    return make_tiny_reward(tmp_path_factory.mktemp("reward") / "tiny", "encoder", 1)


@pytest.fixture(scope="module")
def server(folder):
    with start_server("services.reward", folder) as running:
        yield running


@pytest.fixture(scope="module")
def ensemble_server(folder, other_folder):
    pair = other_folder.parent / "pair"
    write_ensemble(pair, [folder, other_folder])
    with start_server("services.reward", pair) as running:
        yield running


@pytest.fixture(scope="module")
def revision(server):
    return revision_of(server)


@pytest.fixture(scope="module")
def other_server(other_folder):
    with start_server("services.reward", other_folder, "--engine", "fake") as running:
        yield running


def revision_of(server):
    with RewardClient(server.target) as client:
        return client.model_info().provenance.revision


def keep(out, rows, kind="score"):
    """What a stopped run without any option leaves."""
    completions = "completion" if kind == "score" else "completions"
    fields = {"--prompt-field": "prompt", f"--{completions}-field": completions}
    as_the_model_does = {"--truncation": "", "--aggregate": "", "--variance-weight": ""}
    out.with_name("out.jsonl.partial.options").write_text(json.dumps(fields | as_the_model_does))
    return write(out.with_name("out.jsonl.partial"), rows)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_scores_are_those_of_the_client_and_say_where_they_come_from(server, tmp_path):
    rows = [{"id": i, "prompt": f"question {i}", "completion": f"answer {i} of many"} for i in range(7)]
    source = write(tmp_path / "in.jsonl", rows)
    done = palate("score", str(source), str(tmp_path / "out.jsonl"), "--target", server.target, "--batch", "3")
    assert done.returncode == 0, done.stderr
    assert "7 rows" in done.stderr
    with RewardClient(server.target) as client:
        expected = client.score([r["prompt"] for r in rows], [r["completion"] for r in rows])
    found = read_rows(tmp_path / "out.jsonl")
    assert [row["id"] for row in found] == list(range(7))
    assert [row["score"] for row in found] == pytest.approx(expected.scores(), abs=1e-5)
    assert {row["scored_by"]["revision"] for row in found} == {expected.provenance.revision}


@pytest.mark.parametrize(
    ("flags", "aggregate"),
    [
        ([], Aggregate.MEAN),
        (["--aggregate", "mean"], Aggregate.MEAN),
        (["--aggregate", "min"], Aggregate.MIN),
        (["--aggregate", "mean-minus-variance", "--variance-weight", "2.5"], MeanMinusVariance(2.5)),
    ],
)
def test_an_ensemble_is_asked_for_one_score_as_the_command_says(ensemble_server, tmp_path, flags, aggregate):
    source = write(tmp_path / "in.jsonl", [{"prompt": "p", "completion": "fine", "completions": ["fine", "a plan"]}])
    for command in ("score", "rank"):
        done = palate(
            command, str(source), str(tmp_path / command) + ".jsonl", "--target", ensemble_server.target, *flags
        )
        assert done.returncode == 0, done.stderr
    with RewardClient(ensemble_server.target) as client:
        expected = client.score(["p", "p"], ["fine", "a plan"], aggregate=aggregate).scores()
    assert read_rows(tmp_path / "score.jsonl")[0]["score"] == pytest.approx(expected[0], abs=1e-5)
    ranking = read_rows(tmp_path / "rank.jsonl")[0]["ranking"]
    assert [each["score"] for each in ranking] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--aggregate", "min"], "is one model without members; leave the aggregate out"),
        (["--aggregate", "mean-minus-variance"], "give both, or neither"),
        (["--aggregate", "min", "--variance-weight", "1"], "give both, or neither"),
    ],
)
def test_an_aggregate_that_makes_no_sense_is_refused_before_anything_is_scored(server, tmp_path, flags, complaint):
    source = write(tmp_path / "in.jsonl", [{"prompt": "p", "completion": "fine"}])
    done = palate("score", str(source), str(tmp_path / "out.jsonl"), "--target", server.target, *flags)
    assert done.returncode == STOPPED
    assert complaint in told(done)
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(("out", "said"), [("in.jsonl", "is already there"), ("out.txt", "out.txt")])
def test_an_output_that_cannot_be_is_refused_without_a_traceback(server, tmp_path, out, said):
    source = write(tmp_path / "in.jsonl", [{"prompt": "p", "completion": "fine"}])
    done = palate("score", str(source), str(tmp_path / out), "--target", server.target)
    assert done.returncode == STOPPED
    assert told(done).startswith("stopped")
    assert said in told(done)


def test_a_row_that_fails_has_an_error_and_no_score(server, tmp_path):
    rows = [{"prompt": "p", "completion": "fine"}, {"prompt": "p", "completion": ""}]
    source = write(tmp_path / "in.jsonl", rows)
    done = palate("score", str(source), str(tmp_path / "out.jsonl"), "--target", server.target)
    assert done.returncode == SOME_FAILED
    good, bad = read_rows(tmp_path / "out.jsonl")
    assert "score" in good
    assert "score" not in bad
    assert bad["error"].startswith("INVALID")


def test_results_of_an_earlier_model_do_not_stay(server, tmp_path):
    old = {"score": 99.5, "calibrated": 1.0, "scored_by": {"model": "older"}}
    rows = [{"prompt": "p", "completion": "", **old}, {"prompt": "p", "completion": "fine", "error": "FAILED: once"}]
    source = write(tmp_path / "in.jsonl", rows)
    done = palate("score", str(source), str(tmp_path / "out.jsonl"), "--target", server.target)
    assert done.returncode == SOME_FAILED
    assert "1 without a result" in " ".join(done.stderr.split())
    bad, good = read_rows(tmp_path / "out.jsonl")
    assert bad.keys() == {"prompt", "completion", "error", "scored_by"}
    assert bad["scored_by"] == good["scored_by"]
    assert "score" in good
    assert "error" not in good


OTHERWISE = [
    ("score", ["--truncation", "left"], "no --truncation, not with --truncation left;"),
    ("rank", ["--truncation", "left"], "no --truncation, not with --truncation left;"),
    ("score", ["--completion-field", "prompt"], "--completion-field completion, not with --completion-field prompt;"),
    (
        "score",
        ["--aggregate", "mean-minus-variance", "--variance-weight", "2"],
        "no --aggregate, no --variance-weight, not with --aggregate mean-minus-variance, --variance-weight 2.0;",
    ),
]


@pytest.mark.parametrize(("kind", "flags", "said"), OTHERWISE)
def test_results_that_were_made_otherwise_are_not_gone_on_with(server, tmp_path, kind, flags, said):
    source = write(tmp_path / "in.jsonl", [{"prompt": "p", "completion": "c", "completions": ["c"]}])
    partial = keep(tmp_path / "out.jsonl", [{"prompt": "p", "completion": "c"}], kind)
    kept = partial.read_bytes()
    done = palate(kind, str(source), str(tmp_path / "out.jsonl"), "--target", server.target, *flags)
    assert done.returncode == STOPPED
    assert f"made with {said} such results do not mix. Give the former options again" in told(done)
    assert partial.read_bytes() == kept


def test_a_stopped_run_goes_on_where_it_was(server, tmp_path):
    rows = [{"prompt": "p", "completion": f"c{i}"} for i in range(4)]
    source = write(tmp_path / "in.jsonl", rows)
    kept = [row | {"score": 100.0 + i} for i, row in enumerate(rows[:2])]
    keep(tmp_path / "out.jsonl", kept)
    assert palate("score", str(source), str(tmp_path / "out.jsonl"), "--target", server.target).returncode == 0
    assert [row["score"] for row in read_rows(tmp_path / "out.jsonl")][:2] == [100.0, 101.0]
    assert len(read_rows(tmp_path / "out.jsonl")) == 4


def test_results_of_another_input_are_not_gone_on_with(server, tmp_path):
    source = write(tmp_path / "in.jsonl", [{"prompt": "p", "completion": "c"}])
    keep(tmp_path / "out.jsonl", [{"prompt": "q", "completion": "c", "score": 1.0}])
    done = palate("score", str(source), str(tmp_path / "out.jsonl"), "--target", server.target)
    assert done.returncode == 2
    assert "remove its .partial file" in done.stderr.replace("\n", " ")


def test_ranks(server, tmp_path):
    source = write(tmp_path / "in.jsonl", [{"prompt": "p", "completions": ["one", "two", "", "four"]}])
    done = palate("rank", str(source), str(tmp_path / "out.jsonl"), "--target", server.target)
    assert done.returncode == SOME_FAILED  # one completion is empty
    (row,) = read_rows(tmp_path / "out.jsonl")
    scores = {i: result["score"] for i, result in enumerate(row["ranking"]) if "score" in result}
    assert row["order"] == sorted(scores, key=scores.get, reverse=True)
    assert row["ranking"][2]["error"].startswith("INVALID")


BAD_LINES = {
    "{broken": "line 2: not JSON",
    "[1]": "line 3: a row is an object, this is a list",
    '{"prompt": "p", "answer": "c"}': "line 4: field 'completion' is missing; the row has answer, prompt",
    '{"prompt": "p", "completion": 5}': "line 5: field 'completion' is no text and no conversation",
    '{"prompt": "p", "completion": "lone \\ud800"}': "line 6: field 'completion' is no Unicode text",
    '{"prompt": [{"role": 1, "content": ""}], "completion": "c"}': "line 7: field 'prompt' is no text and",
    '{"prompt": "p", "completion": ""}': "",  # the server's own error
}


@pytest.mark.parametrize("batch", ["1", "3", "32"])
def test_rows_that_cannot_be_scored_have_errors_and_the_rest_has_scores(server, tmp_path, batch):
    good = json.dumps({"prompt": "p", "completion": "fine"})
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("\n".join([good, *BAD_LINES, good]))
    done = palate("score", str(source), str(out), "--target", server.target, "--batch", batch)
    assert done.returncode == SOME_FAILED, done.stderr
    assert "9 rows in" in told(done)
    assert "7 without a result the first of them, row 2: INVALID:" in told(done)
    first, *bad, last = read_rows(out)
    assert first == last
    assert isinstance(first["score"], float)
    for row, (line, message) in zip(bad, BAD_LINES.items(), strict=True):
        assert row["error"].startswith(f"INVALID: {source}, {message}" if message else "INVALID: ")
        assert not {"score", "calibrated"} & row.keys()
        assert ("scored_by" in row) == (not message)  # no model gave what was never sent
        if line.startswith("{") and line != "{broken":
            assert json.loads(line).items() <= row.items()


def test_a_file_with_bad_lines_goes_on_where_it_was(server, tmp_path):
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"prompt": "p", "completion": "lone \\ud800"}\n{broken\n{"prompt": "p", "completion": "c"}\n')
    run = ["score", str(source), str(out), "--target", server.target]
    assert palate(*run).returncode == SOME_FAILED
    whole = out.read_bytes()
    out.unlink()
    keep(out, []).write_bytes(b"".join(whole.splitlines(keepends=True)[:2]))
    assert palate(*run).returncode == SOME_FAILED
    assert out.read_bytes() == whole


@pytest.mark.parametrize("kind", ["score", "rank"])
@pytest.mark.parametrize("name", ["in.jsonl", "in.parquet"])
def test_a_file_without_rows_is_named_and_nothing_is_written(server, tmp_path, kind, name):
    (tmp_path / name).write_bytes(b"")
    done = palate(kind, str(tmp_path / name), str(tmp_path / "out.jsonl"), "--target", server.target)
    assert done.returncode == STOPPED
    assert "Traceback" not in done.stderr
    assert f"{tmp_path / name} " in done.stderr  # whole, so that it can be copied
    assert ("is empty; give a file" if name == "in.jsonl" else "write it again, or give the rows as") in told(done)
    assert {path.name for path in tmp_path.iterdir()} == {name}


class TestSizes:
    """Rows of tens of kilobytes against limits of 64 KiB."""

    LIMIT = str(64 * 1024)

    def score(self, server, tmp_path, kilobytes, *flags):
        rows = [{"prompt": "p", "completion": "word " * 200 * size} for size in kilobytes]
        source, out = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
        done = palate("score", str(source), str(out), "--target", server.target, "--truncation", "right", *flags)
        assert done.returncode == SOME_FAILED, done.stderr
        scored = read_rows(out)
        assert ["score" in row for row in scored] == [size < 64 for size in kilobytes]
        return [row["error"] for row in scored if "error" in row]

    def test_batches_stay_below_the_limit_and_one_row_that_cannot_fails(self, server, tmp_path):
        (error,) = self.score(server, tmp_path, (30, 30, 30, 90, 1, 60, 30), "--max-message-bytes", self.LIMIT)
        assert "line 4: the row has 900" in error
        assert "a request holds 61440 of them; shorten it, or raise --max-message-bytes" in error

    def test_so_they_do_where_only_the_server_knows_its_limits(self, folder, tmp_path):
        limits = ["--max-message-bytes", self.LIMIT, "--max-queue-tokens", "300"]
        with start_server("services.reward", folder, "--engine", "fake", *limits) as server:
            (error,) = self.score(server, tmp_path, (30, 31, 90))
        assert error.startswith("INVALID: ")
        assert "larger than max" in error


class TestOneRevision:
    @pytest.fixture
    def source(self, tmp_path):
        return write(
            tmp_path / "in.jsonl", [{"prompt": "p", "completion": c, "completions": [c, "b"]} for c in ("one", "two")]
        )

    @pytest.mark.parametrize("kind", ["score", "rank"])
    def test_an_output_is_not_gone_on_with_by_another_model(self, server, other_server, source, revision, kind):
        out, partial = source.with_name("out.jsonl"), source.with_name("out.jsonl.partial")
        assert palate(kind, str(source), str(out), "--target", server.target).returncode == 0
        keep(out, [], kind).write_text(out.read_text().splitlines(keepends=True)[0])
        out.unlink()
        kept = partial.read_bytes()
        done = palate(kind, str(source), str(out), "--target", other_server.target)
        assert done.returncode == STOPPED
        assert f"by revision {revision}, the server answers with revision {revision_of(other_server)};" in told(done)
        assert "serve the former again and give the same command; to score all rows with the latter" in told(done)
        assert partial.read_bytes() == kept
        assert not out.exists()
        pinned = ["--revision", revision_of(other_server)]
        done = palate(kind, str(source), str(out), "--target", other_server.target, *pinned)
        assert done.returncode == STOPPED
        assert f"by revision {revision}, --revision says revision {pinned[1]};" in told(done)
        assert palate(kind, str(source), str(out), "--target", server.target).returncode == 0
        assert {row["scored_by"]["revision"] for row in read_rows(out)} == {revision}

    @pytest.mark.parametrize("kind", ["score", "rank"])
    def test_what_is_pinned_is_insisted_on(self, server, source, revision, kind):
        out = source.with_name("out.jsonl")
        run = [kind, str(source), str(out), "--target", server.target]
        done = palate(*run, "--revision", "0" * 64)
        assert done.returncode == STOPPED
        assert f"expects revision '{'0' * 64}'; tiny has {revision} here" in told(done)
        assert "serve that revision, or pin another one" in told(done)
        done = palate(*run, "--model", "another")
        assert done.returncode == STOPPED
        assert "there is no model 'another' here; this server has 'tiny'" in told(done)
        assert palate(*run, "--model", "tiny", "--revision", revision).returncode == 0

    def test_a_model_that_is_exchanged_during_a_run_stops_it(self, folder, other_folder, tmp_path):
        def serve(model, port=0):
            command = ["-m", "services.reward", "--model", str(model), "--engine", "fake"]
            return local_server(command, port=port)

        entries = [Entry(str(n), {"prompt": "p", "completion": str(n)}) for n in range(4)]
        with serve(folder) as first, RewardClient(first.target) as client:
            before = revision_of(first)
            calls = Calls(client, {}, OneRevision([], tmp_path / "out.jsonl.partial", ""), pytest.fail)
            batches = scored_rows(calls, entries, Columns("prompt", "completion"), Limits(2, 2**20))
            assert {row["scored_by"]["revision"] for row in next(batches)} == {before}
            first.stop()
            with serve(other_folder, int(first.target.rpartition(":")[2])) as second:
                after = revision_of(second)
                with pytest.raises(ModelChanged, match=f"by revision {before}, the server answers with .*{after}"):
                    next(batches)

    def test_rows_of_two_revisions_are_not_gone_on_with(self, tmp_path):
        rows = [{"scored_by": {"revision": "a"}}, {"error": "INVALID: never sent"}, {"scored_by": {"revision": "b"}}]
        with pytest.raises(ModelChanged, match="by revision a, later rows there are by revision b"):
            OneRevision(rows, tmp_path / "out.jsonl.partial", "")


def test_completions_that_cannot_be_ranked_leave_the_rest_alone(server, tmp_path):
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    lines = [
        '{"prompt": "p", "completions": ["one", 5, "\\ud800", "two words"]}',
        '{"prompt": "p", "completions": ["one", "two words"]}',
        '{"prompt": "p", "completions": [5]}',
        '{"prompt": "p", "completions": []}',
        '{"prompt": 5, "completions": ["one"]}',
        "{broken",
        json.dumps({"prompt": "p", "completions": ["c"] * 1025}),
        json.dumps({"prompt": "p", "completions": ["c", "c" * 70_000]}),
    ]
    source.write_text("\n".join(lines))
    done = palate("rank", str(source), str(out), "--target", server.target, "--max-message-bytes", str(64 * 1024))
    assert done.returncode == SOME_FAILED, done.stderr
    assert "7 without a result the first of them, row 1: INVALID:" in told(done)
    some, whole, none, *unranked = read_rows(out)
    scores = [result["score"] for result in whole["ranking"]]
    assert [some["ranking"][place]["score"] for place in (0, 3)] == pytest.approx(scores, abs=1e-5)
    assert some["order"] == [3 * place for place in whole["order"]]
    assert some["ranking"][1]["error"].startswith(f"INVALID: {source}, line 1: completion 1 is no text")
    assert some["ranking"][2]["error"].startswith(f"INVALID: {source}, line 1: completion 2 is no Unicode text")
    assert none["order"] == []
    assert [list(result) for result in none["ranking"]] == [["error"]]
    reasons = [
        "line 4: field 'completions' must be a list with at least one completion",
        "line 5: field 'prompt' is no text",
        "line 6: not JSON",
        "line 7: 1025 completions; this server ranks at most 1024: leave some out",
        "line 8: the row has 70",
    ]
    for row, reason in zip(unranked, reasons, strict=True):
        assert row["error"].startswith(f"INVALID: {source}, {reason}")
        assert not {"order", "ranking", "scored_by"} & row.keys()


@pytest.mark.parametrize("kind", ["score", "rank"])
def test_help_teaches_pins_and_exit_codes(kind):
    done = palate(kind, "--help")
    assert done.returncode == 0
    for words in ("--model", "--revision", "Revision to insist on", "--max-message-bytes", "Exit code: 0 = every"):
        assert words in told(done)
    assert "3 = done, but some rows" in told(done)
    assert "2 = stopped, or not begun" in told(done)


def test_ping(server):
    done = palate("ping", "--target", server.target)
    assert done.returncode == 0
    assert "SERVING" in done.stdout
    assert "tiny" in done.stdout
    nobody = palate("ping", "--target", "127.0.0.1:1", "--timeout", "5")
    assert nobody.returncode == 2
    assert "is the server running" in " ".join(nobody.stdout.split())


def test_ping_shows_what_it_is_told_as_it_is():
    done = palate("ping", "--target", "[/red]:1", "--timeout", "1")
    assert done.returncode == 2
    assert "[/red]:1" in done.stdout
    assert "Traceback" not in done.stderr


def test_an_unknown_command_lists_those_there_are():
    done = palate("scroe")
    assert done.returncode == 2
    assert "there is no command 'scroe'" in done.stderr
    assert "score" in done.stderr
