"""Tables in a pipe keep their cells."""

from palate.terminal import stdout_console


def test_in_a_pipe_nothing_is_cut_at_eighty_columns(monkeypatch, capsys):
    monkeypatch.delenv("COLUMNS", raising=False)
    stdout_console().print("x" * 150)
    assert capsys.readouterr().out == "x" * 150 + "\n"


def test_who_names_a_width_gets_it(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert stdout_console().width == 40
