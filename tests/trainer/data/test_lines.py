import gzip
import json

import pytest

from trainer.data import lines
from trainer.data.lines import DataError, append_rows, read_rows, write_rows


def test_reads_plain_and_gzipped_files_and_skips_empty_lines(tmp_path):
    text = '{"x": 1}\n\n{"x": 2}\n'
    (tmp_path / "rows.jsonl").write_text(text)
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    for name in ("rows.jsonl", "rows.jsonl.gz"):
        assert [(row.line, row.values["x"]) for row in read_rows(tmp_path / name)] == [(1, 1), (3, 2)]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "holds no rows"),
        ('{"x": 1}\n{"x": \n', r"rows.jsonl:2: not JSON \(Expecting value at character 6\); write one object"),
        ("[1]\n", r"rows.jsonl:1: not a JSON object"),
        ("[" * 100_000, r"rows.jsonl:1: not JSON \(maximum recursion depth"),
        ('{"x": ' + "1" * 5000 + "}", r"rows.jsonl:1: not JSON \(Exceeds the limit"),
    ],
)
def test_a_broken_file_is_refused_with_its_place(tmp_path, content, complaint):
    file = tmp_path / "rows.jsonl"
    file.write_text(content)
    with pytest.raises(DataError, match=complaint):
        list(read_rows(file))


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", "1" + "0" * 400])
def test_a_number_is_a_finite_one(tmp_path, value):
    file = tmp_path / "rows.jsonl"
    file.write_text(f'{{"margin": {value}}}')
    (row,) = read_rows(file)
    with pytest.raises(DataError, match="'margin' must be a finite number"):
        row.number("margin", 0.0)


def test_missing_and_damaged_files_are_data_errors(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        list(read_rows(tmp_path / "absent.jsonl"))
    damaged = tmp_path / "rows.jsonl.gz"
    damaged.write_bytes(gzip.compress(b'{"x": 1}\n' * 1000)[:-20])
    with pytest.raises(DataError, match="cannot be read"):
        list(read_rows(damaged))


def test_lines_and_rows_are_bounded(tmp_path, monkeypatch):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"x": 1}\n' * 3)
    with pytest.raises(DataError, match="more than 2 rows"):
        list(read_rows(file, max_rows=2))
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 5)
    with pytest.raises(DataError, match=r"longer than 5 bytes .*, the limit; shorten its texts"):
        list(read_rows(file))


def test_fields_are_checked_by_type(tmp_path):
    write_rows(tmp_path / "rows.jsonl", [{"prompt": 3, "margin": "x", "chat": [{"role": "user"}]}])
    (row,) = read_rows(tmp_path / "rows.jsonl")
    with pytest.raises(DataError, match=r"rows.jsonl:1: 'prompt' must be a text; it is a number"):
        row.text("prompt")
    with pytest.raises(DataError, match=r"'answer' must be a text; it is missing \(the row has 'chat', 'margin'"):
        row.text("answer")
    with pytest.raises(DataError, match="'margin' must be a number"):
        row.number("margin", 0.0)
    with pytest.raises(DataError, match="'role' and 'content'"):
        row.messages("chat")


def test_appended_rows_follow_what_is_there(tmp_path):
    file = tmp_path / "rows.jsonl"
    append_rows(file, [{"x": 1}])
    append_rows(file, [{"x": "zwölf"}, {"x": 3}])
    assert [json.loads(line)["x"] for line in file.read_text(encoding="utf-8").splitlines()] == [1, "zwölf", 3]
