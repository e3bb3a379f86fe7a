import pytest

from trainer.data import prompts
from trainer.data.lines import DataError, write_rows
from trainer.data.prompts import PromptRow, read_prompts


def test_a_group_is_optional_and_other_keys_are_left_alone(tmp_path):
    write_rows(tmp_path / "p.jsonl", [{"prompt": "A?", "group": "g", "id": 7}, {"prompt": "B?"}])
    assert read_prompts(tmp_path / "p.jsonl") == [PromptRow("A?", "g"), PromptRow("B?", "")]


@pytest.mark.parametrize("row", [{"text": "A?"}, {"prompt": ""}, {"prompt": 3}, {"prompt": "A?", "group": 3}])
def test_rows_without_a_usable_prompt_are_refused(tmp_path, row):
    write_rows(tmp_path / "p.jsonl", [row])
    with pytest.raises(DataError, match=r"p.jsonl:1: "):
        read_prompts(tmp_path / "p.jsonl")


def test_more_prompts_than_memory_is_meant_for_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(prompts, "MAX_PROMPTS", 2)
    write_rows(tmp_path / "p.jsonl", [{"prompt": "A?"}] * 3)
    with pytest.raises(DataError, match=r"p.jsonl has more than 2 rows; split it"):
        read_prompts(tmp_path / "p.jsonl")
