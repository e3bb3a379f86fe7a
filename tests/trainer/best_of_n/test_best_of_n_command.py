"""`palate best-of-n` through real policy and reward services, stopped and gone on with, and what it refuses."""

import json

import pytest
from typer.testing import CliRunner

from palate.local_server import local_server
from palate.models.ensemble import write_ensemble
from tests.reward_folders import make_bert
from tests.servers import start_server
from tests.tiny_models import make_tiny_policy
from tests.trainer.ppo.faulty_policy import POISON_TOKENS
from trainer.best_of_n_command import app
from trainer.data.lines import write_rows
from trainer.ppo.build import load_policy

GOLD = "tests.trainer.best_of_n.gold_for_tests"
SAMPLES, PROMPTS, NEW_TOKENS = 8, 6, 8
ALL_SCORED = 37
"""A seed with which every completion of the usual prompts has a score: none is without letters, or holds a NUL."""
DONE, STOPPED, SOME_FAILED = 0, 2, 3


QUICK = ("--threads", "1", "--drain-delay-seconds", "0")
POISON = "a plan of so many words that no other prompt here has as many"


@pytest.fixture(scope="module")
def policy_folder(tmp_path_factory):
    return make_tiny_policy(tmp_path_factory.mktemp("policy") / "policy", 0, max_tokens=64)


@pytest.fixture(scope="module")
def narrow(policy_folder):
    """Address of the same policy, which fails on POISON, and takes four of the completions here at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(POISON_TOKENS, str(len(load_policy(policy_folder)[1].render_prompt(POISON))))
        command = ["-m", "tests.trainer.ppo.faulty_policy", "--model", str(policy_folder), *QUICK]
        with local_server([*command, "--max-queue-tokens", str(4 * NEW_TOKENS)]) as server:
            yield server.target


@pytest.fixture(scope="module")
def world(tmp_path_factory, policy_folder):
    """Addresses of a policy and of a server with an ensemble and another model, and prompts."""
    root = tmp_path_factory.mktemp("best-of-n")
    members = [make_bert(root / name, seed=seed) for seed, name in enumerate(("one", "two"))]
    write_ensemble(root / "both", members)
    other = make_bert(root / "other", seed=7)
    rows = [{"prompt": f"what do you think of plan {place}"} for place in range(PROMPTS)]
    write_rows(root / "prompts.jsonl", [*rows, rows[0]])
    more = ("--models", f"other={other}", "--models", f"one={members[0]}")
    with (
        start_server("services.policy", policy_folder, *QUICK) as policy,
        start_server("services.reward", root / "both", *QUICK, *more) as reward,
    ):
        yield policy.target, reward.target, root / "prompts.jsonl"


@pytest.fixture
def best_of_n(world):
    """Runs the command with some flags changed; None leaves one out."""
    policy, reward, prompts = world
    usual = {"policy": policy, "prompts": prompts, "proxy": reward, "gold": reward, "gold-model": "other"}
    usual |= {"seed": ALL_SCORED, "samples": SAMPLES, "max-new-tokens": NEW_TOKENS, "concurrency": 2}

    def run(out, **changes):
        flags = usual | {"out": out} | {name.replace("_", "-"): value for name, value in changes.items()}
        words = [word for name, value in flags.items() if value is not None for word in (f"--{name}", str(value))]
        return CliRunner(env={"COLUMNS": "200"}).invoke(app, [*words, "--no-progress"])

    return run


def rows_of(out):
    return [json.loads(line) for line in (out / "drawn.jsonl").read_text().splitlines()]


def test_an_ensemble_against_another_model_and_going_on_after_a_stop(best_of_n, tmp_path):
    said = best_of_n(tmp_path)
    assert said.exit_code == DONE, said.output
    found = json.loads((tmp_path / "best-of-n.json").read_text())
    assert (found["prompts"], found["completions"], found["sizes"]) == (PROMPTS, PROMPTS * SAMPLES, [1, 2, 4, 8])
    assert [way["name"] for way in found["ways"]] == ["single", "mean", "min", "mean-minus-variance"]
    assert all(way["proxy"][-1]["value"] > 0 for way in found["ways"])
    assert "gain in gold" in said.output
    assert "curves:" in said.output
    assert "<svg" in (tmp_path / "best-of-n.html").read_text()
    rows = rows_of(tmp_path)
    assert all(len(row["proxy"]["members"]) == 2 for row in rows)
    # A kill in the middle of the third prompt's rows: the rest is asked for, to the same end.
    lines = (tmp_path / "drawn.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "drawn.jsonl").write_bytes(b"".join(lines[: 2 * SAMPLES + 3]) + lines[2 * SAMPLES + 3][:20])
    assert best_of_n(tmp_path).exit_code == DONE
    assert rows_of(tmp_path) == rows
    assert json.loads((tmp_path / "best-of-n.json").read_text()) == found


def test_a_larger_limit_goes_on_where_a_smaller_one_ended(best_of_n, tmp_path):
    assert best_of_n(tmp_path, limit=3, proxy_model="one").exit_code == DONE
    before = rows_of(tmp_path)
    assert best_of_n(tmp_path, proxy_model="one").exit_code == DONE
    assert len(before) == 3 * SAMPLES
    assert rows_of(tmp_path)[: len(before)] == before


def test_a_function_as_gold_and_what_it_gives_no_number_for(best_of_n, tmp_path):
    said = best_of_n(tmp_path, gold=None, gold_model=None, gold_function=f"{GOLD}:short", proxy_model="other")
    assert said.exit_code in (DONE, SOME_FAILED), said.output
    found = json.loads((tmp_path / "best-of-n.json").read_text())
    assert [way["name"] for way in found["ways"]] == ["score"]
    failed = sum("error" in row["gold"] for row in rows_of(tmp_path))
    assert found["excluded"]["gold"] == ({"FAILED": failed} if failed else {})
    assert (said.exit_code == SOME_FAILED) == bool(failed)
    assert f"worth what {GOLD}:short says" in said.output


def refused(said, *words):
    assert said.exit_code == STOPPED, said.output
    assert all(word in said.output for word in words), said.output


def test_bad_input_is_told_with_what_to_do(best_of_n, world, tmp_path):
    _, reward, _ = world
    refused(best_of_n(tmp_path, samples=1), "samples", "8 completions of a prompt or more")
    refused(best_of_n(tmp_path, gold_model=None), "gold is the proxy", "another --gold")
    refused(best_of_n(tmp_path, proxy_model="other", gold=f"dns:///{reward}"), "gold is the proxy", "revision")
    refused(best_of_n(tmp_path, gold=None, gold_model=None), "--gold-function, and not both")
    refused(best_of_n(tmp_path, proxy_model="one", variance_weight=2), "one model without members")
    refused(best_of_n(tmp_path, limit=10, prompts=tmp_path / "none.jsonl"), "none.jsonl", "cannot be read")
    (tmp_path / "empty.jsonl").write_text("")
    refused(best_of_n(tmp_path, prompts=tmp_path / "empty.jsonl"), "holds no rows")
    nowhere = best_of_n(tmp_path, gold=None, gold_model=None, gold_function="nowhere:gold")
    refused(nowhere, "--gold-function nowhere:gold", "PYTHONPATH")
    lost = best_of_n(tmp_path / "lost", gold=None, gold_model=None, gold_function=f"{GOLD}:lost")
    refused(lost, "1 values for 8 completions")
    assert not (tmp_path / "drawn.jsonl").exists()


def test_prompts_that_the_policy_does_not_take_are_counted(best_of_n, tmp_path):
    rows = [{"prompt": "a plan"}, {"prompt": "another plan"}, {"prompt": "too long " * 100}]
    write_rows(tmp_path / "prompts.jsonl", rows)
    said = best_of_n(tmp_path, prompts=tmp_path / "prompts.jsonl", proxy_model="one")
    assert said.exit_code == SOME_FAILED, said.output
    assert "1 prompts are left out: the policy does not take them" in said.output
    assert json.loads((tmp_path / "best-of-n.json").read_text())["excluded"]["refused"] == 1


def drawn_in(out):
    return [(row["number"], row["completion"], row["seed"]) for row in rows_of(out)]


def test_what_a_server_does_not_take_at_once_comes_in_parts_and_is_the_same(best_of_n, narrow, tmp_path):
    assert best_of_n(tmp_path / "narrow", policy=narrow, limit=3, proxy_model="one").exit_code == DONE
    assert best_of_n(tmp_path / "wide", limit=3, proxy_model="one").exit_code == DONE
    assert drawn_in(tmp_path / "narrow") == drawn_in(tmp_path / "wide")


def test_a_limit_of_the_server_ends_the_command_and_is_written_down_of_no_prompt(best_of_n, narrow, tmp_path):
    more = {"max_new_tokens": 4 * NEW_TOKENS + 1, "limit": 2, "proxy_model": "one"}
    said = best_of_n(tmp_path, policy=narrow, **more)
    refused(said, "for a single completion", "takes 32 at once", "Lower --max-new-tokens", "--max-queue-tokens")
    assert not (tmp_path / "drawn.jsonl").exists()
    again = best_of_n(tmp_path, **more)
    assert again.exit_code in (DONE, SOME_FAILED), again.output
    assert "the policy does not take them" not in again.output


def test_a_prompt_that_the_engine_fails_on_is_counted_and_asked_for_again(best_of_n, narrow, tmp_path):
    file, out = tmp_path / "prompts.jsonl", tmp_path / "out"
    write_rows(file, [{"prompt": POISON}, *({"prompt": f"plan {place}"} for place in range(3))])
    for _ in range(2):
        said = best_of_n(out, policy=narrow, prompts=file, proxy_model="one")
        assert said.exit_code == SOME_FAILED, said.output
        assert "1 prompts are left out for now: the policy failed on them" in said.output
        (failed,) = [row for row in rows_of(out) if "failed" in row]
        assert (failed["prompt"], failed["failed"][:17]) == (POISON, "the engine failed")
        found = json.loads((out / "best-of-n.json").read_text())
        assert (found["prompts"], found["excluded"]["failed"]) == (3, 1)
        assert len(rows_of(out)) == 3 * SAMPLES + 1
    assert "left out for now" not in best_of_n(out, prompts=file, proxy_model="one").output
    best_of_n(tmp_path / "unbroken", prompts=file, proxy_model="one")
    assert sorted(drawn_in(out)) == sorted(drawn_in(tmp_path / "unbroken"))
    found, unbroken = (json.loads((folder / "best-of-n.json").read_text()) for folder in (out, tmp_path / "unbroken"))
    assert found == unbroken
    assert (found["prompts"], found["excluded"]["failed"]) == (4, 0)


def test_a_folder_is_not_gone_on_with_otherwise(best_of_n, tmp_path):
    assert best_of_n(tmp_path, limit=2, proxy_model="one").exit_code == DONE
    refused(
        best_of_n(tmp_path, limit=2, proxy_model="one", temperature=0.5, seed=1),
        "another sampling, seed, prompts",
        "another --out",
    )
    for strange in ('{"number": 0, "group": "a"}', '{"number": 7, "group": "a"}', '{"prompt": "a"}'):
        (tmp_path / "drawn.jsonl").write_text(strange + "\n")
        refused(best_of_n(tmp_path, limit=2, proxy_model="one"), "no row of `palate best-of-n` here")
        assert (tmp_path / "drawn.jsonl").read_text() == strange + "\n"
