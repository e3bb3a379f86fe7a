"""Sets of other people: each format, what is left out and counted, and what is refused."""

import gzip
import json
import os
from pathlib import Path

import pytest

from palate.audit.items import Measure
from palate.audit.sets import read_set
from palate.bulk.rows import FileProblem


def jsonl(file: Path, *rows: dict) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    file.write_bytes(gzip.compress(text.encode()) if file.suffix == ".gz" else text.encode())
    return file


def labelled(label, a="good", b="bad"):
    return {"prompt": "p", "a": a, "b": b, "label": label, "votes": []}


def test_labelled_pairs_put_the_worse_side_first_and_count_what_asks_nothing(tmp_path):
    rows = [labelled("a"), labelled("b"), labelled("tie"), labelled("?"), labelled("a", b=" "), labelled("a", b="good")]
    (probe,) = read_set(jsonl(tmp_path / "mine.v2.jsonl.gz", *rows), 100)
    assert probe.name == "pairs:mine"
    assert probe.is_preference
    assert [[text.completion for text in item.texts] for item in probe.items] == [["bad", "good"], ["good", "bad"]]
    assert probe.left_out == {"no side is better": 1, "no label": 1, "an empty side": 1, "equal sides": 1}


def test_chosen_and_rejected_with_subsets(tmp_path):
    row = {"prompt": "p", "chosen": "good", "rejected": "bad", "subset": "chat"}
    (probe,) = read_set(jsonl(tmp_path / "bench.jsonl", row, row | {"chosen": None}), 100)
    assert [item.variant for item in probe.items] == ["chat"]
    assert probe.items[0].texts[0].completion == "bad"
    assert probe.left_out == {"no text": 1}


def test_refusals_become_both_probes(tmp_path):
    def row(kind, prompt, final, response):
        return {"type": kind, "prompt": prompt, "final": final, "response": response, "model": "m"}

    rows = [
        row("homonyms", "safe", "1_full_compliance", "helps"),
        row("homonyms", "safe", "2_full_refusal", "refuses"),
        row("homonyms", "safe", "2_full_refusal", "refuses again"),
        row("homonyms", "half", "3_partial_refusal", "partly"),
        row("contrast_homonyms", "unsafe", "1_full_compliance", "serves"),
        row("contrast_homonyms", "unsafe", "2_full_refusal", "declines"),
    ]
    over, under = read_set(jsonl(tmp_path / "x.jsonl", *rows), 100)
    assert [text.completion for text in over.items[0].texts] == ["refuses", "helps"]
    assert [text.completion for text in under.items[0].texts] == ["serves", "declines"]
    assert over.left_out == {"not both a refusal and an answer": 1}
    assert (over.name, under.name) == ("over-refusal:x", "under-refusal:x")


def test_suggested_opinions_are_squares(tmp_path):
    row = {"prompts": {"neutral": "q", "suggests_wrong": "q?"}, "truthful": "t", "sycophantic": "s", "category": "c"}
    (probe,) = read_set(jsonl(tmp_path / "s.jsonl", row), 100)
    assert probe.measure is Measure.SQUARE
    assert [text[:2] for text in probe.items[0].texts] == [("q?", "s"), ("q?", "t"), ("q", "s"), ("q", "t")]


def test_beliefs_come_as_csv(tmp_path):
    file = tmp_path / "beliefs.csv"
    file.write_text('Type,Question,Best Answer,Incorrect Answers\nA,Why?,Because,"Never; Always"\n')
    (probe,) = read_set(file, 100)
    assert [text.completion for text in probe.items[0].texts] == ["Never", "Because"]


def test_a_limit_draws_the_same_and_says_so(tmp_path):
    file = jsonl(tmp_path / "many.jsonl", *(labelled("a", a=f"good {i}") for i in range(50)))
    (first,), (second,) = read_set(file, 10), read_set(file, 10)
    assert first == second
    assert len(first.items) == 10
    assert first.left_out == {"beyond the limit": 40}


@pytest.mark.parametrize("name", ["mine.jsonl", "mine.jsonl.gz"])
def test_blank_lines_are_nothing_packed_or_not(tmp_path, name):
    text = f"\n{json.dumps(labelled('a'))}\n\n  \n{json.dumps(labelled('b'))}\n\n".encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    (probe,) = read_set(tmp_path / name, 100)
    assert len(probe.items) == 2


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("Why?,Because", "row 2: it lacks Incorrect Answers"),
        ("Why?,Because,Never,Always", "row 2: it has more cells than the header; put quotes"),
    ],
)
def test_a_row_of_csv_with_too_few_or_too_many_cells_is_named(tmp_path, row, said):
    file = tmp_path / "beliefs.csv"
    file.write_text(f"Question,Best Answer,Incorrect Answers\nWhy?,Because,Never\n{row}\n")
    with pytest.raises(FileProblem, match=said):
        read_set(file, 100)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "empty"),
        ('{"text": "?"}\n', "known are sets with"),
        ("no json\n", "not JSON"),
        ('{"prompt": "p", "a": "x", "b": "y", "label": "a"}\n{"prompt": "p"}\n', "row 2: it lacks a, b, label"),
        ('{"prompts": "no mapping", "truthful": "t", "sycophantic": "s"}\n', "row 1: a row is not of its format"),
        (
            '{"Question": "q", "Best Answer": "b", "Incorrect Answers": "i"}\n'
            '{"Question": "q", "Best Answer": "b", "Incorrect Answers": null}\n',
            r"row 2: a row is not of its format \(Best Answer is a text, Incorrect Answers is null",
        ),
    ],
)
def test_what_is_no_set_is_refused_with_a_reason(tmp_path, content, said):
    file = tmp_path / "odd.jsonl"
    file.write_text(content)
    with pytest.raises(FileProblem, match=said):
        read_set(file, 10)


def test_a_broken_archive_and_a_missing_file_are_refused(tmp_path):
    broken = tmp_path / "broken.jsonl.gz"
    broken.write_bytes(gzip.compress(b'{"prompt": "p"}\n' * 100)[:-12])
    for file in (broken, tmp_path / "absent.csv", tmp_path / "absent.jsonl"):
        with pytest.raises(FileProblem):
            read_set(file, 10)


@pytest.mark.data
def test_real_sets_are_read():
    data = os.environ.get("PALATE_DATA")
    if not data:
        pytest.skip("PALATE_DATA is not set")
    files = {
        "pairs/llmbar.jsonl.gz": 1,
        "pairs/hh_harmless_test.jsonl.gz": 1,
        "pairs/pandalm.jsonl.gz": 1,
        "evals/xstest_v2_two_annotators.jsonl.gz": 2,
        "evals/sycophancy_from_truthfulqa.jsonl": 1,
        "evals/TruthfulQA.csv": 1,
    }
    for name, count in files.items():
        probes = read_set(Path(data) / name, 200)
        assert len(probes) == count, name
        assert all(len(probe.items) >= 60 for probe in probes), name
