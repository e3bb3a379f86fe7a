"""Sets as the hub has them: from a folder laid out as one, and downloaded from a hub."""

import gzip
import json

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants

from tests.hub_server import COMMIT, MOVED, ask, hub_over
from trainer.command import no_other_try_mends
from trainer.data.comparisons import read_comparisons
from trainer.data.lines import DataError, write_rows
from trainer.data.repository import DataAway, at_commit, commit_of, hub_of, split_named
from trainer.data.tables import read_table

CARD = """---
configs:
- config_name: helpful
  data_files:
  - {split: train, path: "helpful/train.jsonl.gz"}
  - {split: test, path: "helpful/test.jsonl.gz"}
- config_name: harmless
  data_files: "harmless.jsonl"
---
"""


def rows(name, count=3):
    return [{"prompt": f"{name} {number}?", "chosen": "good", "rejected": "bad"} for number in range(count)]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Where `datasets` keeps what it has prepared."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "prepared")


def write_set(folder, *, card=""):
    """A set with two configurations, the first of which has two splits; without a card, with two splits."""
    (folder / "helpful").mkdir(parents=True)
    for split, found in {"train": rows("helpful"), "test": rows("test", 2)}.items():
        with gzip.open(folder / "helpful" / f"{split}.jsonl.gz", "wt") as file:
            file.writelines(f"{json.dumps(row)}\n" for row in found)
    if card:
        write_rows(folder / "harmless.jsonl", rows("harmless"))
        (folder / "README.md").write_text(card)
    return folder


def prompts(source):
    return [row.values["prompt"] for row in read_table(source)]


def test_splits_of_a_folder_laid_out_as_on_the_hub(tmp_path):
    folder = write_set(tmp_path / "rows", card=CARD)
    assert prompts(tmp_path / "rows:helpful/train") == ["helpful 0?", "helpful 1?", "helpful 2?"]
    assert prompts(tmp_path / "rows:helpful/test") == ["test 0?", "test 1?"]
    assert prompts(tmp_path / "rows:harmless/train") == ["harmless 0?", "harmless 1?", "harmless 2?"]
    assert prompts(tmp_path / "rows:harmless") == ["harmless 0?", "harmless 1?", "harmless 2?"]
    with pytest.raises(DataError, match=rf"several splits; give one of them: {folder}:helpful/train, "):
        prompts(tmp_path / "rows:helpful")
    with pytest.raises(DataError, match=rf"no split 'dev'; give one of them: {folder}:harmless/train$"):
        prompts(tmp_path / "rows:harmless/dev")
    for part in ("", ":train", ":other/train"):
        with pytest.raises(DataError, match=rf"give one of them: {folder}:helpful, {folder}:harmless$"):
            prompts(tmp_path / f"rows{part}")


def test_files_are_splits_by_their_names(tmp_path):
    (tmp_path / "rows" / "data").mkdir(parents=True)
    for split in ("train", "test"):
        table = pa.Table.from_pylist(rows(split))
        pq.write_table(table, tmp_path / "rows" / "data" / f"{split}-00000-of-00001.parquet")
    assert prompts(tmp_path / "rows:test") == ["test 0?", "test 1?", "test 2?"]
    (tmp_path / "rows" / "data" / "test-00000-of-00001.parquet").write_bytes(b"no table")
    with pytest.raises(DataError, match=r"cannot be read as a set of rows \(.*Parquet"):
        prompts(tmp_path / "rows:test")


@pytest.mark.parametrize("place", ["rows", "../here/rows", "link"])
def test_a_folder_may_be_named_in_any_way(tmp_path, monkeypatch, place):
    here = tmp_path / "here"
    write_set(here / "rows", card=CARD)
    (here / "link").symlink_to("rows")
    monkeypatch.chdir(here)
    assert prompts(type(here)(f"{place}:helpful/test")) == ["test 0?", "test 1?"]


def test_comparisons_of_a_single_split_need_no_name(tmp_path):
    (tmp_path / "rows").mkdir()
    write_rows(tmp_path / "rows" / "all.jsonl", rows("only", 300))
    found = read_comparisons(tmp_path / "rows").rows
    assert [(row.prompt, row.a, row.label) for row in found[:2]] == [("only 0?", "good", "a"), ("only 1?", "good", "a")]
    assert len(found) == 300
    write_rows(tmp_path / "rows" / "all.jsonl", [*rows("only"), {"prompt": "p", "chosen": "good"}])
    with pytest.raises(DataError, match=rf"{tmp_path}/rows:4: 'rejected' missing"):
        read_comparisons(tmp_path / "rows")


def test_a_saved_set_has_splits_by_the_same_names(tmp_path):
    sets = {name: datasets.Dataset.from_list(rows(name)) for name in ("train", "test")}
    datasets.DatasetDict(sets).save_to_disk(str(tmp_path / "saved"))
    assert prompts(tmp_path / "saved:test") == prompts(tmp_path / "saved" / "test") == ["test 0?", "test 1?", "test 2?"]
    with pytest.raises(DataError, match=f"no split 'dev'; give one of them: {tmp_path}/saved:train, {tmp_path}/saved:"):
        prompts(tmp_path / "saved:dev")
    with pytest.raises(DataError, match="was saved without splits, so it has none called 'test'"):
        prompts(tmp_path / "saved" / "test:test")


@pytest.mark.parametrize("path", ["../other.jsonl", "/FOLDER/other.jsonl", "http://127.0.0.1:9/rows.jsonl"])
def test_rows_outside_of_the_folder_are_not_read(tmp_path, path):
    write_rows(tmp_path / "other.jsonl", rows("secret"))
    path = path.replace("/FOLDER", str(tmp_path))
    card = f'---\nconfigs:\n- config_name: default\n  data_files: "{path}"\n---\n'
    write_set(tmp_path / "rows", card=card)
    with pytest.raises(DataError, match=r"names rows (outside of itself|on other machines).*copy them into"):
        prompts(tmp_path / "rows")


@pytest.mark.parametrize(
    "yaml",
    [
        'pretty_name: "\\q"',
        "configs: [",
        "configs: 3",
        "configs: [3]",
        "configs: [{config_name: a}, {config_name: a, data_files: 3}]",
        "- no mapping",
        f"configs: {'[' * 3000}",
    ],
)
def test_a_broken_readme_is_said(tmp_path, yaml):
    write_set(tmp_path / "rows", card=f"---\n{yaml}\n---\n")
    with pytest.raises(DataError, match=f"{tmp_path}/rows cannot be read as a set of rows"):
        prompts(tmp_path / "rows")


@pytest.mark.parametrize("path", ["s3://bucket/rows.jsonl", "https://127.0.0.1:9/rows.jsonl", "data/*.jsonl"])
def test_what_the_other_file_says_of_splits_is_not_followed(tmp_path, path):
    write_set(tmp_path / "rows", card="text")
    (tmp_path / "rows" / ".huggingface.yaml").write_text(f'configs: [{{config_name: default, data_files: "{path}"}}]')
    with pytest.raises(DataError, match=r"\.huggingface\.yaml says which files are which split.*write it there"):
        prompts(tmp_path / "rows")


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("rows.jsonl", ("rows.jsonl", "")),
        ("odd:name.jsonl", ("odd:name.jsonl", "")),
        ("hub:org/name", ("hub:org/name", "")),
        ("hub:org/name@main:train", ("hub:org/name@main", "train")),
        ("hub:org/name:helpful/train", ("hub:org/name", "helpful/train")),
    ],
)
def test_what_is_a_split_and_what_a_name(tmp_path, monkeypatch, source, parts):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd:name.jsonl").touch()
    assert tuple(map(str, split_named(tmp_path / source if ":" not in source else type(tmp_path)(source)))) == (
        str(tmp_path / parts[0]) if ":" not in source else parts[0],
        parts[1],
    )


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with the set org/preferences."""
    folder = write_set(tmp_path / "hub" / "datasets" / "org" / "preferences", card=CARD)
    (folder / "helpful" / "model.pkl").write_text("a pickle")
    with hub_over(tmp_path / "hub") as server:
        ask(monkeypatch, server, tmp_path / "cache")
        yield server


def test_a_set_of_the_hub_is_downloaded_and_there_without_it(hub, tmp_path, monkeypatch):
    source = type(tmp_path)("hub:org/preferences@main:helpful/train")
    assert [row.prompt for row in read_comparisons(source).rows] == ["helpful 0?", "helpful 1?", "helpful 2?"]
    assert "helpful/model.pkl" not in hub.asked
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert len(read_comparisons(source).rows) == 3
    with pytest.raises(DataError, match=r"give one of them: hub:org/preferences:helpful/train, "):
        read_comparisons(type(tmp_path)("hub:org/preferences:helpful/dev"))


def test_offline_the_error_says_how_the_set_comes_here(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    told = r"org/preferences@main is not in the hub's cache.*`hf download org/preferences --repo-type dataset"
    with pytest.raises(DataError, match=told):
        read_comparisons(type(tmp_path)("hub:org/preferences:train"))
    with pytest.raises(DataError, match="is no name on the hub"):
        read_comparisons(type(tmp_path)("hub:preferences:train"))


def test_what_the_other_file_of_the_hub_says_is_not_passed_over(hub, tmp_path):
    (hub.root / "datasets/org/preferences/.huggingface.yaml").write_text("configs: []")
    with pytest.raises(DataError, match=r"\.huggingface\.yaml says which files are which split"):
        read_comparisons(type(tmp_path)("hub:org/preferences:helpful/train"))


def test_another_try_may_mend_a_hub_that_is_away(hub, tmp_path):
    hub.away = True
    source = type(tmp_path)("hub:org/preferences:helpful/train")
    with pytest.raises(DataAway, match="the hub cannot be asked"):
        read_comparisons(source)
    with pytest.raises(DataAway, match="the hub cannot be asked") as raised:
        commit_of(hub_of(source))
    assert not no_other_try_mends(raised.value)


@pytest.mark.parametrize("part", ["", ":train", ":helpful/train"])
def test_a_branch_has_a_commit_and_a_part_stays_one(hub, tmp_path, part):
    place = type(tmp_path)
    source = place(f"hub:org/preferences{part}")
    assert commit_of(hub_of(source)) == COMMIT
    hub.heads, hub.commits[MOVED] = [MOVED], hub.root
    assert commit_of(hub_of(source)) == MOVED
    pinned = at_commit(source, COMMIT)
    assert pinned == place(f"hub:org/preferences@{COMMIT}{part}")
    assert commit_of(hub_of(pinned)) == COMMIT
