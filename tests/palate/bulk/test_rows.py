"""Files of rows: what is no row is told with its place, what cannot be read with its name and a remedy."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.bulk import rows as rows_module
from palate.bulk.rows import FileProblem, count_entries, read_entries

json_values = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5)
rows = st.dictionaries(st.text(max_size=5), json_values, max_size=3)
no_rows = st.sampled_from([b"{broken", b"[1]", b"7", b"\xff\xfe", b'{"a": "\xff"}', b"[" * 100_000])
lines = rows.map(lambda row: (json.dumps(row).encode(), row)) | no_rows.map(lambda line: (line, None))


@given(st.lists(lines, max_size=8))
def test_every_line_is_a_row_or_says_why_not(tmp_path_factory, given_lines):
    path = tmp_path_factory.mktemp("r") / "in.jsonl"
    path.write_bytes(b"\n".join(line for line, _ in given_lines))
    entries = list(read_entries(path))
    assert [entry.row if not entry.problem else None for entry in entries] == [row for _, row in given_lines]
    assert [entry.where for entry in entries] == [f"{path}, line {n + 1}" for n in range(len(given_lines))]
    assert all(entry.row == {} for entry in entries if entry.problem)


def test_blank_lines_count_as_lines_and_are_no_rows(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text('{"a": 1}\n\n  \n{broken\n')
    good, bad = read_entries(path)
    assert good.row == {"a": 1}
    assert bad.where == f"{path}, line 4"
    assert bad.problem.startswith("not JSON")


def test_bytes_that_are_no_text_are_called_that(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\xff\xfe\n")
    (bad,) = read_entries(path)
    assert bad.problem == "not UTF-8 (invalid start byte at byte 0)"


def test_a_line_that_is_too_long_is_one_problem_and_the_next_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(rows_module, "MAX_LINE_BYTES", 20)
    path = tmp_path / "in.jsonl"
    rows = [{"a": "x" * n} for n in (1, 12, 13, 100, 20, 2)]  # 12: twenty bytes with the quotes
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = [len(entry.row["a"]) if not entry.problem else entry.problem for entry in read_entries(path)]
    assert found == [1, *["longer than 20 bytes"] * 4, 2]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"x", r"a.csv is neither .jsonl nor .parquet; give a file"),
        ("a.jsonl", b"", r"a.jsonl is empty; give a file with at least one row"),
        ("a.jsonl", b"\n \n", r"a.jsonl is empty"),
        ("a.jsonl", b"prompt,completion\np,c\n", r"a.jsonl has no row: .*a.jsonl, line 1: not JSON .*write one JSON"),
        ("a.jsonl", b'[{"prompt": "p"}]', r"a.jsonl has no row: .*line 1: a row is an object, this is a list"),
        ("a.parquet", b"", r"a.parquet cannot be read as Parquet .*write it again, or give the rows as .jsonl"),
        ("a.parquet", b"garbage" * 9, r"a.parquet cannot be read as Parquet .*broken, cut off or of another kind"),
    ],
)
def test_a_file_without_rows_is_named_with_a_remedy(tmp_path, name, content, message):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(FileProblem, match=message):
        count_entries(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileProblem, match=r"no.jsonl does not exist"):
        count_entries(tmp_path / "no.jsonl")


class TestParquet:
    @pytest.fixture
    def write(self, tmp_path):
        pyarrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")

        def write(**columns):
            parquet.write_table(pyarrow.table(columns), tmp_path / "in.parquet", compression="none")
            return tmp_path / "in.parquet"

        return write

    def test_rows_have_numbers(self, write):
        path = write(prompt=["a", "b"], note=[None, "n"])
        entries = list(read_entries(path))
        assert [entry.row for entry in entries] == [{"prompt": "a", "note": None}, {"prompt": "b", "note": "n"}]
        assert [entry.where for entry in entries] == [f"{path}, row 1", f"{path}, row 2"]

    def test_without_rows(self, write):
        with pytest.raises(FileProblem, match=r"in.parquet is empty"):
            count_entries(write(prompt=[]))

    def test_one_that_is_cut_off_or_damaged_inside(self, write):
        path = write(prompt=[f"a long enough text, number {n}" for n in range(2000)])
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(FileProblem, match=r"in.parquet cannot be read as Parquet"):
            count_entries(path)
        path.write_bytes(whole.replace(b"number 1500", b"number \xff\xff\xff\xff"))  # no UTF-8
        with pytest.raises(FileProblem, match=r"in.parquet cannot be read as Parquet after row 1024"):
            count_entries(path)

    def test_values_that_results_cannot_keep(self, write):
        with pytest.raises(FileProblem, match=r"in.parquet, row 1: .*bytes.*cast that column to text, or leave it out"):
            count_entries(write(prompt=["a"], picture=[b"\x00"]))
