"""Numbers and lists that pages repeat are those of the place they come from."""

import re

from palate.audit.policy.behaviours import questions
from palate.audit.policy.builtin import builtin_behaviours
from tests.examples.toolchains import ROOT
from trainer.config import PPOConfig


def page(name):
    return (ROOT / name).read_text(encoding="utf-8")


def section(text, title):
    """What stands under a heading, up to the next of its level or above."""
    level = title.index(" ")
    return re.split(rf"^#{{1,{level}}} ", text.partition(f"{title}\n")[2], flags=re.MULTILINE)[0]


def test_the_readme_has_no_figure_of_annotators_that_the_results_have_not():
    told = section(page("README.md"), "### What annotators teach")
    found = section(page("docs/results.md"), "## Biased annotators")
    results = re.sub("[−–]", "-", found)
    figures = re.findall(r"-?\d+\.\d+", told.replace("−", "-"))
    assert len(figures) > 20
    assert [figure for figure in figures if not re.search(rf"(?<![\d.]){re.escape(figure)}(?![\d.])", results)] == []
    wins = re.findall(r"^\| (.*?) \| (\d+, \d+, \d+) \|", told, re.MULTILINE)
    assert len(wins) == 3
    for who, three in wins:
        if not who.startswith("the same"):
            kind = who.split()[0]
            (row,) = re.findall(rf"^\| {kind}: honest above flattering, of 20 \|[^|]*\|(.*)\|$", found, re.MULTILINE)
            assert row.replace(" ", "").split("|")[:3] == three.split(", ")


def test_a_policy_is_asked_as_many_questions_as_is_said():
    count = f"{len(questions(builtin_behaviours()))} questions"
    assert count in " ".join(page("docs/audit.md").split())
    assert count in page("palate/audit/policy/command.py")


def test_every_stage_from_score_to_reward_is_explained():
    told = section(page("docs/ppo.md"), "## Scores to rewards")
    stages = ("standardize", "clip", "missing-eos", "min-tokens", "short-penalty", "variety-bonus")
    scoring = PPOConfig.model_fields["scoring"].annotation.model_fields
    assert {stage.replace("-", "_") for stage in stages} <= set(scoring)
    assert all(f"`{stage}`" in told for stage in stages)
    others = {"standardize_samples", "missing_eos_penalty", "aggregate", "variance_weight", "max_dropped_share"}
    assert {name.replace("_", "-") for name in set(scoring) - others} == set(stages), "explain the new stage"
