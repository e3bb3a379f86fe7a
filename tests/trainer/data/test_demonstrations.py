import pytest

from trainer.data.demonstrations import Demonstration, read_demonstrations
from trainer.data.lines import DataError, write_rows


def test_prompts_are_texts_or_messages(tmp_path):
    messages = [{"role": "user", "content": "Hi"}]
    write_rows(tmp_path / "d.jsonl", [{"prompt": "A?", "completion": "B."}, {"prompt": messages, "completion": "C."}])
    assert read_demonstrations(tmp_path / "d.jsonl") == [Demonstration("A?", "B."), Demonstration(messages, "C.")]


@pytest.mark.parametrize("row", [{"prompt": "A?"}, {"completion": "B."}, {"prompt": "A?", "completion": " "}])
def test_incomplete_rows_are_refused(tmp_path, row):
    write_rows(tmp_path / "d.jsonl", [row])
    with pytest.raises(DataError, match=r"d.jsonl:1: '(completion|prompt)'"):
        read_demonstrations(tmp_path / "d.jsonl")
