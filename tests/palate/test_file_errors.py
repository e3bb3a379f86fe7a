import pytest

from palate.file_errors import cause_of, unwritable, words_of


def test_of_a_file_the_path_is_said_once_and_no_number(tmp_path):
    file = tmp_path / "none"
    with pytest.raises(OSError, match=r"\[Errno 2\]") as raised:
        file.read_bytes()
    assert cause_of(raised.value) == "No such file or directory"
    assert words_of(raised.value) == f"{file}: No such file or directory"
    assert unwritable(file, raised.value) == f"{file} cannot be written: No such file or directory"


def test_of_a_folder_in_the_place_of_a_file_there_is_a_remedy(tmp_path):
    with pytest.raises(IsADirectoryError) as raised:
        tmp_path.write_bytes(b"")
    assert unwritable(tmp_path, raised.value).endswith("it is a folder; choose a file as --out")


def test_other_errors_speak_for_themselves():
    assert cause_of(ValueError("why")) == words_of(ValueError("why")) == words_of(OSError("why")) == "why"
