"""A stored run through a second real reward service, by the real command."""

import json
import subprocess
import sys

import numpy as np
import pytest

from palate.bulk.rows import FileProblem
from palate.client import Failed, RewardClient
from palate.rescore.compare import rank_correlation
from palate.rescore.kept import KeptScores
from palate.rollout_files import read_rollouts, write_rollouts
from tests.json_lines import read_rows
from tests.reward_folders import texts
from tests.servers import start_server
from tests.tiny_models import make_tiny_reward

SOME_FAILED, STOPPED = 3, 2


def rescore(*arguments):
    code = "from palate.rescore.command import app; app()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, timeout=120
    )


def row(step, place, prompt, completion, score):
    version = {"run_id": "run", "incarnation": 1, "step": step - 1, "digest": "d"}
    components = [{"name": "taste", "score": -score, "revision": "r"}, {"name": "other", "score": 1.0, "revision": "s"}]
    return {
        "step": step,
        "place": place,
        "prompt": prompt,
        "completion": completion,
        "prompt_ids": [1],
        "completion_ids": [2],
        "behaviour_logprobs": [-1.0],
        "finish_reason": "STOP",
        "seed": place,
        "policy_version": version,
        "policy_versions": [{"first_token": 0, "version": version}],
        "score": score,
        "components": components,
        "shaped_score": score,
        "reward_revision": "r-and-s",
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = make_tiny_reward(tmp_path_factory.mktemp("reward") / "tiny", "encoder", 0)
    with start_server("services.reward", folder, "--drain-delay-seconds", "0") as running:
        yield running


@pytest.fixture
def run(tmp_path):
    """Three steps of four prompts with two completions each; one completion cannot be scored, one comes twice."""
    pairs = texts(12, seed=3)
    for step in (1, 2, 3):
        rows = []
        for place in range(8):
            prompt = pairs[place // 2][0]
            completion = pairs[(step * 5 + place) % 12][1]
            completion = {(2, 3): "[/]\0"}.get((step, place), completion)
            rows.append(row(step, place, prompt, completion, float((7 * step + 3 * place) % 11)))
        if step == 3:
            rows[7] = row(3, 7, rows[6]["prompt"], rows[6]["completion"], 5.0)
        write_rollouts(tmp_path / "rollouts", rows)
    return tmp_path


def test_another_model_is_compared_with_what_the_run_was_scored_by(run, server):
    out = run / "report.json"
    done = rescore(run, "--target", server.target, "--json", out, "--top", 3)
    assert done.returncode == SOME_FAILED, done.stderr
    report = json.loads(out.read_text())

    stored = list(read_rollouts(run))
    with RewardClient(server.target) as client:
        results = client.score([r["prompt"] for r in stored], [r["completion"] for r in stored]).results
        revision = client.model_info().provenance.revision
    both = [(r, result.score) for r, result in zip(stored, results, strict=True) if not isinstance(result, Failed)]
    before, after = np.array([r["score"] for r, _ in both]), np.array([score for _, score in both])

    assert (report["scored"], report["failed"]) == (23, {"INVALID": 1})
    assert report["spearman"]["value"] == pytest.approx(rank_correlation(before, after).value)
    assert [(s["step"], s["scored"], s["failed"]) for s in report["steps"]] == [(1, 8, 0), (2, 7, 1), (3, 8, 0)]
    assert report["step_pairs"]["pairs"] + report["step_pairs"]["tied"] == 28 + 21 + 28
    assert report["prompt_pairs"]["pairs"] + report["prompt_pairs"]["tied"] == 4 + 3 + 4
    assert report["winners"]["groups"] == 11
    assert report["after"]["revision"] == revision
    assert report["before"] == ["r-and-s"]
    worst = report["disagreements"]
    assert len(worst) == 3
    apart = [abs(each["percentile_before"] - each["percentile_after"]) for each in worst]
    assert apart == sorted(apart, reverse=True)
    found = {(r["step"], r["place"]): (r["prompt"], r["completion"], r["score"], score) for r, score in both}
    for each in worst:
        assert found[each["step"], each["place"]] == (
            each["prompt"],
            each["completion"],
            each["before"],
            pytest.approx(each["after"], abs=1e-5),
        )
    assert "23 rollouts have both scores, 1 × INVALID" in done.stdout
    assert not any(r["completion"] in done.stderr for r in stored)

    kept = list((run / "rescored").iterdir())
    assert len(kept) == 1
    assert revision in kept[0].name
    assert len(kept[0].read_text().splitlines()) == 22  # a text that comes twice is asked for once
    assert not any(r["completion"] in kept[0].read_text() for r in stored)


def test_a_stopped_job_goes_on_where_it_was(run, server):
    assert rescore(run, "--target", server.target, "--top", 0).returncode == SOME_FAILED
    (kept,) = (run / "rescored").iterdir()
    lines = kept.read_text().splitlines(keepends=True)
    told = json.loads(lines[0])
    kept.write_text(json.dumps({**told, "score": 1000.0}) + "\n" + "".join(lines[1:10]) + lines[10][:20])
    out = run / "report.json"
    assert rescore(run, "--target", server.target, "--top", 30, "--json", out).returncode == SOME_FAILED
    again = read_rows(kept)
    assert len(again) == 22
    assert again[0]["score"] == 1000.0  # what was kept was not asked for again
    assert max(each["after"] for each in json.loads(out.read_text())["disagreements"]) == 1000.0


def test_one_of_several_rewards_can_be_compared(run, server):
    signs = []
    for flags in ((), ("--component", "taste")):
        out = run / "report.json"
        rescore(run, "--target", server.target, "--json", out, *flags)
        signs.append(json.loads(out.read_text())["spearman"]["value"])
    assert signs[0] == pytest.approx(-signs[1])
    done = rescore(run, "--target", server.target, "--component", "tast")
    assert done.returncode == STOPPED
    assert "there are taste, other" in " ".join(done.stderr.split())


def test_what_cannot_begin_says_so(run, server, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    done = rescore(empty, "--target", server.target)
    assert done.returncode == STOPPED
    assert "holds no rollouts" in " ".join(done.stderr.split())
    done = rescore(run, "--target", server.target, "--revision", "0" * 64)
    assert done.returncode == STOPPED
    assert not (run / "rescored").exists()


def test_a_foreign_file_of_scores_is_refused(tmp_path):
    file = tmp_path / "kept.jsonl"
    file.write_text('{"text": "a", "score": 1.5}\n[]\n')
    with pytest.raises(FileProblem, match=r"kept.jsonl, line 2.*remove the file"):
        KeptScores(file)
