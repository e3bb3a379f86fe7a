"""Rows with results survive a stop at any moment, and reach their file whatever they hold."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.bulk.results import Results
from palate.bulk.rows import FileProblem, read_entries

any_text = st.text(st.characters() | st.characters(categories=["Cs"]), max_size=20)  # lone surrogates too
rows = st.lists(st.dictionaries(st.text(min_size=1, max_size=5), any_text, min_size=1), max_size=8)


def read(path):
    return [entry.row for entry in read_entries(path)]


@given(rows, st.integers(0, 200))
def test_what_was_written_before_a_stop_is_gone_on_with(tmp_path_factory, given_rows, lost):
    out = tmp_path_factory.mktemp("r") / "out.jsonl"
    Results(out).append(given_rows)
    partial = Results(out).partial
    whole = partial.read_bytes()
    partial.write_bytes(whole[: max(0, len(whole) - lost)])
    done = Results(out).done()
    assert done == given_rows[: len(done)]
    Results(out).append(given_rows[len(done) :])
    results = Results(out)
    assert results.done() == given_rows
    results.finish()
    assert read(out) == given_rows


def test_parquet_keeps_rows_with_different_fields(tmp_path):
    pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    results = Results(tmp_path / "out.parquet")
    results.append([{"prompt": "a", "score": 1.5}, {"prompt": "b\ud800", "error": "INVALID: mend it"}])
    results.finish()
    assert read(tmp_path / "out.parquet") == [
        {"prompt": "a", "score": 1.5, "error": None},
        {"prompt": "b?", "score": None, "error": "INVALID: mend it"},
    ]
    assert not results.partial.exists()


def test_what_parquet_cannot_hold_is_not_lost(tmp_path):
    pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    results = Results(tmp_path / "out.parquet")
    results.append([{"prompt": "a"}, {"prompt": 5}])
    with pytest.raises(FileProblem, match=r"all results are in .*out.parquet.partial: rename it to .jsonl"):
        results.finish()
    assert results.done() == [{"prompt": "a"}, {"prompt": 5}]


def test_a_result_that_is_there_and_a_broken_partial_file_are_refused(tmp_path):
    (tmp_path / "out.jsonl").write_text(json.dumps({}))
    with pytest.raises(FileProblem, match=r"already there"):
        Results(tmp_path / "out.jsonl")
    results = Results(tmp_path / "other.jsonl")
    results.partial.write_text("{}\n{broken\n{}\n")
    with pytest.raises(FileProblem, match=r"other.jsonl.partial, line 2: not JSON .*remove the file"):
        results.done()
