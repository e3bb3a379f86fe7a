"""Rows with results survive a stop at any moment, and reach their file whatever they hold."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.bulk.results import Results
from palate.bulk.rows import FileProblem, read_entries

HOW = {"--truncation": "left", "--aggregate": ""}
any_text = st.text(st.characters() | st.characters(categories=["Cs"]), max_size=20)  # lone surrogates too
rows = st.lists(st.dictionaries(st.text(min_size=1, max_size=5), any_text, min_size=1), max_size=8)


def read(path):
    return [entry.row for entry in read_entries(path)]


@given(rows, st.integers(0, 200))
def test_what_was_written_before_a_stop_is_gone_on_with(tmp_path_factory, given_rows, lost):
    out = tmp_path_factory.mktemp("r") / "out.jsonl"
    Results(out, HOW).append(given_rows)
    partial = Results(out, HOW).partial
    whole = partial.read_bytes()
    partial.write_bytes(whole[: max(0, len(whole) - lost)])
    done = Results(out, HOW).done()
    assert done == given_rows[: len(done)]
    Results(out, HOW).append(given_rows[len(done) :])
    results = Results(out, HOW)
    assert results.done() == given_rows
    results.finish()
    assert read(out) == given_rows


def test_parquet_keeps_rows_with_different_fields(tmp_path):
    pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    results = Results(tmp_path / "out.parquet", HOW)
    results.append([{"prompt": "a", "score": 1.5}, {"prompt": "b\ud800", "error": "INVALID: mend it"}])
    results.finish()
    assert read(tmp_path / "out.parquet") == [
        {"prompt": "a", "score": 1.5, "error": None},
        {"prompt": "b?", "score": None, "error": "INVALID: mend it"},
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["out.parquet"]


def test_what_parquet_cannot_hold_is_not_lost(tmp_path):
    pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    results = Results(tmp_path / "out.parquet", HOW)
    results.append([{"prompt": "a"}, {"prompt": 5}])
    with pytest.raises(FileProblem, match=r"all results are in .*out.parquet.partial: rename it to .jsonl"):
        results.finish()
    assert results.done() == [{"prompt": "a"}, {"prompt": 5}]


def test_a_result_that_is_there_and_a_broken_partial_file_are_refused(tmp_path):
    (tmp_path / "out.jsonl").write_text(json.dumps({}))
    with pytest.raises(FileProblem, match=r"already there"):
        Results(tmp_path / "out.jsonl", HOW)
    results = Results(tmp_path / "other.jsonl", HOW)
    results.append([{}])
    results.partial.write_text("{}\n{broken\n{}\n")
    with pytest.raises(FileProblem, match=r"other.jsonl.partial, line 2: not JSON .*remove the file"):
        results.done()


def test_rows_that_were_made_with_other_options_are_not_gone_on_with(tmp_path):
    out = tmp_path / "out.jsonl"
    Results(out, HOW).append([{"a": "1"}])
    others = {"--truncation": "", "--aggregate": "min", "--new": "1"}
    with pytest.raises(FileProblem, match="made with --truncation left, no --aggregate, no --new, not with no --trunc"):
        Results(out, others).done()
    assert Results(out, HOW).done() == [{"a": "1"}]
    Results(out, HOW).partial.unlink()  # as the message says
    Results(out, others).append([{"a": "2"}])
    assert Results(out, others).done() == [{"a": "2"}]
    Results(out, others).finish()
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


@pytest.mark.parametrize("broken", [None, "", "{", "3", "[1]"])
def test_rows_of_which_nobody_knows_how_they_were_made_are_not_gone_on_with(tmp_path, broken):
    results = Results(tmp_path / "out.jsonl", HOW)
    results.append([{"a": "1"}])
    options = results.partial.with_name("out.jsonl.partial.options")
    options.unlink() if broken is None else options.write_text(broken)
    with pytest.raises(FileProblem, match=r"nobody knows with which options .* remove .*out.jsonl.partial to begin"):
        results.done()
