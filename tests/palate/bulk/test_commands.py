"""Files through a real reward service, by the real commands."""

import json
import subprocess
import sys

import pytest

from palate.client import RewardClient
from tests.servers import start_server
from tests.tiny_models import make_tiny_reward


def palate(*arguments):
    command = [sys.executable, "-c", "from palate.command import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reward") / "tiny"
    make_tiny_reward(folder, "encoder", 0)
    with start_server("services.reward", folder) as running:
        yield running


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_scores_are_those_of_the_client_and_say_where_they_come_from(server, tmp_path):
    rows = [{"id": i, "prompt": f"question {i}", "completion": f"answer {i} of many"} for i in range(7)]
    source = write(tmp_path / "in.jsonl", rows)
    done = palate("score", str(source), str(tmp_path / "out.jsonl"), "--target", server.target, "--batch", "3")
    assert done.returncode == 0, done.stderr
    assert "7 rows" in done.stderr
    with RewardClient(server.target) as client:
        expected = client.score([r["prompt"] for r in rows], [r["completion"] for r in rows])
    found = read(tmp_path / "out.jsonl")
    assert [row["id"] for row in found] == list(range(7))
    assert [row["score"] for row in found] == pytest.approx(expected.scores(), abs=1e-5)
    assert {row["scored_by"]["revision"] for row in found} == {expected.provenance.revision}


def test_a_row_that_fails_has_an_error_and_no_score(server, tmp_path):
    rows = [{"prompt": "p", "completion": "fine"}, {"prompt": "p", "completion": ""}]
    source = write(tmp_path / "in.jsonl", rows)
    done = palate("score", str(source), str(tmp_path / "out.jsonl"), "--target", server.target)
    assert done.returncode == 1
    good, bad = read(tmp_path / "out.jsonl")
    assert "score" in good
    assert "score" not in bad
    assert bad["error"].startswith("INVALID")


def test_results_of_an_earlier_model_do_not_stay(server, tmp_path):
    old = {"score": 99.5, "calibrated": 1.0, "scored_by": {"model": "older"}}
    rows = [{"prompt": "p", "completion": "", **old}, {"prompt": "p", "completion": "fine", "error": "FAILED: once"}]
    source = write(tmp_path / "in.jsonl", rows)
    done = palate("score", str(source), str(tmp_path / "out.jsonl"), "--target", server.target)
    assert done.returncode == 1
    assert "1 without a result" in " ".join(done.stderr.split())
    bad, good = read(tmp_path / "out.jsonl")
    assert bad.keys() == {"prompt", "completion", "error", "scored_by"}
    assert bad["scored_by"] == good["scored_by"]
    assert "score" in good
    assert "error" not in good


def test_a_stopped_run_goes_on_where_it_was(server, tmp_path):
    rows = [{"prompt": "p", "completion": f"c{i}"} for i in range(4)]
    source = write(tmp_path / "in.jsonl", rows)
    kept = [row | {"score": 100.0 + i} for i, row in enumerate(rows[:2])]
    write(tmp_path / "out.jsonl.partial", kept)
    assert palate("score", str(source), str(tmp_path / "out.jsonl"), "--target", server.target).returncode == 0
    assert [row["score"] for row in read(tmp_path / "out.jsonl")][:2] == [100.0, 101.0]
    assert len(read(tmp_path / "out.jsonl")) == 4


def test_results_of_another_input_are_not_gone_on_with(server, tmp_path):
    source = write(tmp_path / "in.jsonl", [{"prompt": "p", "completion": "c"}])
    write(tmp_path / "out.jsonl.partial", [{"prompt": "q", "completion": "c", "score": 1.0}])
    done = palate("score", str(source), str(tmp_path / "out.jsonl"), "--target", server.target)
    assert done.returncode == 2
    assert "remove its .partial file" in done.stderr.replace("\n", " ")


def test_ranks(server, tmp_path):
    source = write(tmp_path / "in.jsonl", [{"prompt": "p", "completions": ["one", "two", "", "four"]}])
    done = palate("rank", str(source), str(tmp_path / "out.jsonl"), "--target", server.target)
    assert done.returncode == 1  # one completion is empty
    (row,) = read(tmp_path / "out.jsonl")
    scores = {i: result["score"] for i, result in enumerate(row["ranking"]) if "score" in result}
    assert row["order"] == sorted(scores, key=scores.get, reverse=True)
    assert row["ranking"][2]["error"].startswith("INVALID")


def test_a_row_without_its_field_is_named(server, tmp_path):
    source = write(tmp_path / "in.jsonl", [{"prompt": "p", "answer": "c"}])
    done = palate("score", str(source), str(tmp_path / "out.jsonl"), "--target", server.target)
    assert done.returncode == 2
    assert "row 1: field 'completion' is missing; the row has answer, prompt" in " ".join(done.stderr.split())


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
