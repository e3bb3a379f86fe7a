"""Rows survive a stop at any moment, and wrong files are named."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.bulk.rows import FileProblem, Results, count_rows, read_rows

rows = st.lists(st.dictionaries(st.text(min_size=1, max_size=5), st.text(max_size=20), min_size=1), max_size=8)


@settings(deadline=None)  # files are synced to disk
@given(rows, st.integers(0, 200))
def test_what_was_written_before_a_stop_is_gone_on_with(tmp_path_factory, given_rows, lost):
    out = tmp_path_factory.mktemp("r") / "out.jsonl"
    Results(out).append(given_rows)
    partial = out.with_name("out.jsonl.partial")
    whole = partial.read_bytes()
    partial.write_bytes(whole[: max(0, len(whole) - lost)])
    done = Results(out).done()
    assert done == given_rows[: len(done)]
    Results(out).append(given_rows[len(done) :])
    results = Results(out)
    assert results.done() == given_rows
    results.finish()
    assert list(read_rows(out)) == given_rows


def test_parquet_keeps_rows_with_different_fields(tmp_path):
    pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    out = tmp_path / "out.parquet"
    results = Results(out)
    results.append([{"prompt": "a", "score": 1.5}, {"prompt": "b", "error": "TOO_LONG: cut it"}])
    results.finish()
    expected = [
        {"prompt": "a", "score": 1.5, "error": None},
        {"prompt": "b", "score": None, "error": "TOO_LONG: cut it"},
    ]
    assert list(read_rows(out)) == expected
    assert count_rows(out) == 2


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "x", "neither .jsonl nor .parquet"),
        ("a.jsonl", '{"a": 1}\n{broken', "line 2: not JSON"),
        ("a.jsonl", "[1]", "line 1: a row is an object, this is a list"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(FileProblem, match=message):
        list(read_rows(path))


def test_a_missing_file_and_an_existing_result_are_refused(tmp_path):
    with pytest.raises(FileProblem, match="does not exist"):
        list(read_rows(tmp_path / "no.jsonl"))
    (tmp_path / "out.jsonl").write_text(json.dumps({}))
    with pytest.raises(FileProblem, match="already there"):
        Results(tmp_path / "out.jsonl")
