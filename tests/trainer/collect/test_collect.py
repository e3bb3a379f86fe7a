import json
from dataclasses import replace

import pytest
from pydantic import ValidationError

from benchmarks.protected import make_protection, token_of
from palate.access import AccessError
from palate.client import (
    InvalidArgument,
    PermissionDenied,
    PolicyClient,
    PolicyVersion,
    SamplingParams,
    Unauthenticated,
    Unavailable,
)
from palate.local_server import local_server
from tests.json_lines import read_rows
from tests.tiny_models import make_tiny_policy
from trainer.collect import CollectConfig, run_collect
from trainer.collect.pairs import places
from trainer.collect.panel import make_panel
from trainer.data.comparisons import read_comparisons
from trainer.data.lines import DataError, write_rows
from trainer.data.prompts import read_prompts
from trainer.simulation.annotators import label_error


@pytest.fixture
def config(config):
    """The panel has an error that every one of its members can have."""
    return lambda out, **changes: config(out, **{"label_error": 0.3, **changes})


def test_comparisons_say_who_what_and_from_which_weights(config, served, tmp_path):
    result = run_collect(config(tmp_path / "c.jsonl"))
    rows = read_rows(tmp_path / "c.jsonl")
    assert result.comparisons == len(rows) == 40
    groups = {row["prompt"]: row["group"] for row in map(json.loads, served[1].read_text().splitlines())}
    with PolicyClient(served[0]) as policy:
        version = policy.policy_info().policy_version
    annotators = {annotator.name for annotator in make_panel(config(tmp_path))}
    for row in rows:
        assert row["a"] != row["b"]
        assert row["label"] in ("a", "b", "tie")
        assert row["group"] == groups[row["prompt"]]
        assert row["annotator"] in annotators
        assert row["seconds"] > 0
        assert PolicyVersion(**row["provenance"]["policy_version"]) == version
    assert len({row["annotator"] for row in rows}) > 1
    assert len(read_comparisons(tmp_path / "c.jsonl").rows) == 40


def test_every_completion_can_be_drawn_again_from_its_provenance(config, served, tmp_path):
    run_collect(config(tmp_path / "c.jsonl", pairs=5))
    with PolicyClient(served[0]) as policy:
        for row in map(json.loads, (tmp_path / "c.jsonl").read_text().splitlines()):
            sampling = SamplingParams(**row["provenance"]["sampling"])
            again = policy.generate(
                [row["prompt"]], sampling=sampling, completions_per_prompt=2, seeds=[row["provenance"]["draw_seed"]]
            )
            assert [c.text for c in sorted(again, key=lambda c: c.completion_index)] == [row["a"], row["b"]]


def test_a_killed_collection_goes_on_to_the_same_file(config, tmp_path):
    run_collect(config(tmp_path / "whole.jsonl"))
    whole = (tmp_path / "whole.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    (tmp_path / "part.jsonl").write_bytes(b"".join(lines[:13]) + lines[13][:50])
    result = run_collect(config(tmp_path / "part.jsonl"))
    assert (result.resumed, result.comparisons) == (13, 40)
    assert (tmp_path / "part.jsonl").read_bytes() == whole
    assert run_collect(config(tmp_path / "part.jsonl")).resumed == 40
    assert (tmp_path / "part.jsonl").read_bytes() == whole


def test_calls_at_a_time_change_nothing(config, tmp_path):
    for calls in (1, 5):
        run_collect(config(tmp_path / f"{calls}.jsonl", pairs=70, concurrency=calls))
    assert (tmp_path / "1.jsonl").read_bytes() == (tmp_path / "5.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"seed": 1}, "seed"), ({"temperature": 0.5}, "sampling"), ({"panel": "biased"}, "panel")],
)
def test_a_file_is_not_gone_on_with_under_other_conditions(config, tmp_path, changes, named):
    run_collect(config(tmp_path / "c.jsonl", pairs=2))
    with pytest.raises(DataError, match=f"was collected with another {named};"):
        run_collect(config(tmp_path / "c.jsonl", **changes))


def test_nor_with_other_prompts(config, tmp_path):
    run_collect(config(tmp_path / "c.jsonl", pairs=2))
    write_rows(tmp_path / "other.jsonl", [{"prompt": "Is opening a bakery wise? I want to open a bakery."}])
    with pytest.raises(DataError, match="another prompts"):
        run_collect(config(tmp_path / "c.jsonl", prompts=tmp_path / "other.jsonl"))


def test_questions_of_another_world_are_refused_before_anything_is_drawn(config, tmp_path):
    write_rows(tmp_path / "p.jsonl", [{"prompt": "Should I open a bakery?"}, {"prompt": "Why is the sky blue?"}])
    with pytest.raises(DataError, match=r"p\.jsonl, prompt 2: .*judges answers about the simulated world"):
        run_collect(config(tmp_path / "c.jsonl", prompts=tmp_path / "p.jsonl"))
    assert not (tmp_path / "c.jsonl").exists()


def test_a_policy_that_always_says_the_same_is_given_up(config, tmp_path):
    """At a temperature near 0 both completions of a pair are the same, so no comparison comes of them."""
    with pytest.raises(DataError, match=r"holds 0 of 4 .* 2\d identical, .* The policy .* raise --temperature"):
        run_collect(config(tmp_path / "c.jsonl", pairs=4, temperature=1e-4))
    assert not (tmp_path / "c.jsonl").exists()


def test_identical_pairs_are_left_out_and_counted(config, tmp_path):
    result = run_collect(config(tmp_path / "c.jsonl", pairs=10, max_new_tokens=1, temperature=0.35))
    rows = read_rows(tmp_path / "c.jsonl")
    tried = rows[-1]["provenance"]["number"] + 1
    left_out = result.left_out["identical"] + result.left_out["with an empty completion"]
    assert left_out > 0
    assert tried <= len(rows) + left_out


def test_a_prompt_that_the_policy_refuses_is_left_out_and_the_others_are_not(config, tmp_path):
    prompts = [
        {"prompt": "Should I open a bakery this year?"},
        {"prompt": "Should I open a bakery?" + " Please." * 400},
    ]
    write_rows(tmp_path / "p.jsonl", prompts)
    result = run_collect(config(tmp_path / "c.jsonl", prompts=tmp_path / "p.jsonl", pairs=6))
    assert result.comparisons == 6
    assert result.left_out["with a prompt that the policy refuses"] > 0
    assert {row.prompt for row in read_comparisons(tmp_path / "c.jsonl").rows} == {prompts[0]["prompt"]}
    write_rows(tmp_path / "p.jsonl", prompts[1:])
    with pytest.raises(InvalidArgument, match=r"tokens, and with max_new_tokens"):
        run_collect(config(tmp_path / "d.jsonl", prompts=tmp_path / "p.jsonl", pairs=6))


def test_a_prompt_of_ten_megabytes_is_refused_with_its_place(config, tmp_path):
    write_rows(tmp_path / "p.jsonl", [{"prompt": "Should I open a bakery?"}, {"prompt": "a" * 10_000_000}])
    with pytest.raises(DataError, match=r"p\.jsonl:2: the line is longer than"):
        run_collect(config(tmp_path / "c.jsonl", prompts=tmp_path / "p.jsonl"))


def test_a_file_of_somebody_elses_is_not_gone_on_with(config, tmp_path):
    write_rows(tmp_path / "c.jsonl", [{"prompt": "p", "a": "x", "b": "y", "label": "a"}])
    before = (tmp_path / "c.jsonl").read_bytes()
    with pytest.raises(DataError, match=r"c\.jsonl:1: no row of `palate collect`"):
        run_collect(config(tmp_path / "c.jsonl"))
    assert (tmp_path / "c.jsonl").read_bytes() == before


def test_the_panel_has_the_label_error_that_was_asked_for(config, tmp_path):
    assert label_error(make_panel(config(tmp_path, label_error=0.25))) == pytest.approx(0.25, abs=1e-6)
    with pytest.raises(DataError, match=r"label_error: .* cannot have a label error"):
        make_panel(config(tmp_path, label_error=0.0))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"labeller": "human"}, "labeller"),
        ({"labeller": "person"}, "--labeller person needs --annotator"),
        ({"labeller": "page", "annotator": " "}, "--labeller page needs --annotator"),
        ({"labeller": "judge"}, "--labeller judge needs --judge"),
        ({"choose": "disagreement"}, "--choose disagreement needs --reward"),
        ({"judge": "127.0.0.1:1"}, "--judge goes with --labeller judge, not simulated"),
        ({"labeller": "person", "annotator": "ann", "page_port": 1}, "--page-port goes with --labeller page"),
        (
            {"labeller": "person", "annotator": "ann", "label_error": 0.1},
            "--label-error goes with --labeller simulated",
        ),
        ({"pool": 8}, "--pool goes with --choose disagreement, not random"),
    ],
)
def test_options_that_would_be_ignored_or_are_missing_are_refused(served, tmp_path, changes, told):
    with pytest.raises(ValidationError, match=told):
        CollectConfig(policy=served[0], prompts=served[1], out=tmp_path / "c.jsonl", **changes)


def test_a_name_that_says_gzip_is_refused(served, tmp_path):
    with pytest.raises(ValidationError, match="written as plain lines"):
        CollectConfig(policy=served[0], prompts=served[1], out=tmp_path / "c.jsonl.gz")


def test_without_a_service_the_call_fails_and_nothing_is_written(config, tmp_path):
    with pytest.raises(Unavailable):
        run_collect(config(tmp_path / "c.jsonl", policy="127.0.0.1:1", timeout=2.0, wait=0))
    assert not (tmp_path / "c.jsonl").exists()


@pytest.mark.parametrize(
    ("out", "told"),
    [
        ("folder", r"folder cannot be written: it is a folder; choose a file as --out"),
        ("file/c.jsonl", r"c\.jsonl cannot be written: a part of its path is a file; choose another --out"),
        ("/proc/c.jsonl", r"/proc/c\.jsonl cannot be written: "),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_before_anybody_is_asked(config, tmp_path, out, told):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=told):
        run_collect(config(tmp_path / out, policy="127.0.0.1:1"))


def test_a_service_behind_tls_is_collected_from_with_the_role_generator(config, tmp_path):
    files = make_protection(tmp_path, "policy.example")
    probe = replace(files.tls, server_name="policy.example")
    command = ["-m", "services.policy", "--model", str(make_tiny_policy(tmp_path / "policy", 0, chat=True))]
    access = {"ca": files.ca, "server_name": "policy.example", "token_file": files.token_file("generator")}
    with local_server([*command, *files.tls_flags, *files.token_flags], probe_tls=probe) as server:
        there = {"policy": server.target, **access}
        assert run_collect(config(tmp_path / "c.jsonl", pairs=5, **there)).comparisons == 5
        for changes, error, told in (
            ({"token_file": None}, Unauthenticated, "send a bearer token"),
            ({"token_file": files.token_file("scorer")}, PermissionDenied, "it is for: admin, generator, trainer"),
            ({"token_file": tmp_path / "nowhere"}, AccessError, "nowhere cannot be read"),
            ({"ca": None, "server_name": "", "timeout": 2.0, "wait": 0}, Unavailable, "it may want TLS"),
        ):
            with pytest.raises(error, match=told):
                run_collect(config(tmp_path / "refused.jsonl", **there | changes))
            assert not (tmp_path / "refused.jsonl").exists()
    shown = config(tmp_path, **there).describe()
    assert "generator.token" in shown
    assert token_of("generator") not in shown


def test_each_pass_takes_every_prompt_once_in_an_order_of_its_own(config, served, tmp_path):
    prompts = read_prompts(served[1])
    size = len(prompts)
    found = list(places(config(tmp_path), prompts, 0, 2 * size))
    first, second = ([place.prompt.text for place in found[start : start + size]] for start in (0, size))
    assert sorted(first) == sorted(second) == sorted(prompt.text for prompt in prompts)
    assert first != second
    assert len({place.seed for place in found}) == 2 * size
