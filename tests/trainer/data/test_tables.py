import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainer.data.comparisons import read_comparisons
from trainer.data.lines import MAX_LINE_BYTES, DataError, write_rows
from trainer.data.tables import read_table

ROWS = [
    {"prompt": "p", "a": "x", "b": f"y{number}", "label": "b", "votes": votes}
    for number, votes in enumerate([[], None, [{"annotator": "ann", "vote": "a"}, {"annotator": None, "vote": "tie"}]])
]


def write(folder, form, rows):
    """`rows` in one of the forms, at the path that is returned."""
    if form == "jsonl":
        write_rows(folder / "rows.jsonl", [{k: v for k, v in row.items() if v is not None} for row in rows])
        return folder / "rows.jsonl"
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet", row_group_size=2)
        return folder / "rows.parquet"
    datasets.Dataset.from_list(rows).save_to_disk(str(folder / "rows"))
    return folder / "rows"


@pytest.fixture(params=["jsonl", "parquet", "folder"])
def form(request):
    return request.param


def test_every_form_holds_the_same_comparisons(tmp_path, form):
    found = read_comparisons(write(tmp_path, form, ROWS)).rows
    assert [(row.b, row.annotator, row.label) for row in found] == [
        ("y0", "", "b"),
        ("y1", "", "b"),
        ("y2", "ann", "a"),
        ("y2", "", "tie"),
    ]


def test_complaints_name_source_and_row_in_every_form(tmp_path, form):
    source = write(tmp_path, form, [*ROWS, {"prompt": "p", "a": "x", "b": "y", "label": "A", "votes": None}])
    with pytest.raises(DataError, match=rf"{source}:4: 'label' is 'A'"):
        read_comparisons(source)


def test_a_text_of_ten_megabytes_is_refused_in_every_form(tmp_path, form):
    source = write(tmp_path, form, [*ROWS, ROWS[0] | {"a": "x" * (10 << 20)}])
    with pytest.raises(DataError, match=rf"{source}:4: .* is longer than {MAX_LINE_BYTES}"):
        list(read_table(source))


def test_messages_of_ten_megabytes_are_refused_in_every_form(tmp_path, form):
    long = [{"role": "user", "content": "x" * (10 << 20)}, {"role": "assistant", "content": "y"}]
    source = write(tmp_path, form, [{"chosen": long, "rejected": long[1:]}])
    with pytest.raises(DataError, match=rf"{source}:1: .* is longer than {MAX_LINE_BYTES}"):
        read_comparisons(source)


def test_more_than_one_batch_is_read_in_order(tmp_path, form):
    source = write(tmp_path, form, [{"number": number} for number in range(700)])
    assert [(row.line, row.values["number"]) for row in read_table(source)] == [(n + 1, n) for n in range(700)]


def test_broken_and_empty_sources_are_refused(tmp_path):
    (tmp_path / "broken.parquet").write_bytes(b"no table")
    with pytest.raises(DataError, match="cannot be read as a table"):
        list(read_table(tmp_path / "broken.parquet"))
    with pytest.raises(DataError, match="cannot be read as a table"):
        list(read_table(tmp_path / "absent.parquet"))
    with pytest.raises(DataError, match="holds no rows"):
        list(read_table(write(tmp_path, "parquet", [{"a": "x"}][:0])))
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match=r"cannot be read as a set of rows .*give a folder that `datasets` saved"):
        list(read_table(tmp_path / "other"))


ODD = {
    "a text that is no UTF-8": pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")]
    ),
    "a date that is none": pa.array([2**40], pa.timestamp("s")),
    "a time nowhere": pa.array([1], pa.timestamp("us", "Nowhere/X")),
}


@pytest.mark.parametrize("cells", ODD.values(), ids=ODD)
@pytest.mark.parametrize("form", ["parquet", "folder"])
def test_cells_that_cannot_be_read_are_refused(tmp_path, form, cells):
    table, source = pa.table({"prompt": cells}), tmp_path / f"rows.{form}"
    pq.write_table(table, source) if form == "parquet" else datasets.Dataset(table).save_to_disk(str(source))
    with pytest.raises(DataError, match=rf"{source} cannot be read as a table .*; write it again, or give"):
        list(read_table(source))


def test_a_column_whose_name_is_no_utf8_is_refused(tmp_path):
    source = write(tmp_path, "parquet", [{"prompt": "x"}])
    source.write_bytes(source.read_bytes().replace(b"prompt", b"\x94rompt"))
    with pytest.raises(DataError, match=r"cannot be read as a table .*'utf-8' codec"):
        list(read_table(source))


def test_a_folder_of_several_splits_asks_for_one(tmp_path):
    both = datasets.DatasetDict({name: datasets.Dataset.from_list(ROWS) for name in ("train", "test")})
    both.save_to_disk(str(tmp_path / "rows"))
    with pytest.raises(DataError, match=rf"give one of them: {tmp_path}/rows:train, {tmp_path}/rows:test"):
        list(read_table(tmp_path / "rows"))
    assert len(list(read_table(tmp_path / "rows" / "test"))) == 3
