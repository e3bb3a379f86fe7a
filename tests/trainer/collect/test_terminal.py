import io

from tests.json_lines import read_rows
from trainer.collect import run_collect
from trainer.collect.run import kept_in
from trainer.collect.terminal import printable
from trainer.data.comparisons import read_comparisons


def typed(monkeypatch, lines):
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


def test_a_person_types_and_stops_and_goes_on(config, tmp_path, monkeypatch, capsys):
    there = config(tmp_path / "c.jsonl", labeller="person", annotator="ann", pairs=8)
    typed(monkeypatch, ["1", "nonsense", "2", "T", "s", "1", "q"])
    first = run_collect(there)
    assert (first.comparisons, first.left_out["skipped"], first.stopped) == (4, 1, True)
    assert "the same command goes on" in first.summary()
    typed(monkeypatch, ["2"] * 10)
    second = run_collect(there)
    assert (second.resumed, second.comparisons, second.stopped) == (4, 8, False)
    rows, left_out = read_rows(tmp_path / "c.jsonl"), read_rows(tmp_path / "c.left-out.jsonl")
    preferred = ["first", "second", "tie", "first", *["second"] * 4]
    for row, choice in zip(rows, preferred, strict=True):
        assert row["annotator"] == "ann"
        assert row["seconds"] >= 0
        shown_first = "b" if row["provenance"]["swapped"] else "a"
        said = "tie" if row["label"] == "tie" else "first" if row["label"] == shown_first else "second"
        assert said == choice
    assert {row["provenance"]["swapped"] for row in rows} == {True, False}
    assert [row["left_out"] for row in left_out] == ["skipped"]
    numbers = [row["provenance"]["number"] for row in (*rows, *left_out)]
    assert len(set(numbers)) == 9  # what was skipped is not asked about again
    assert len(read_comparisons(tmp_path / "c.jsonl").rows) == 8
    shown = capsys.readouterr().out
    assert rows[0]["prompt"] in shown
    assert "5 of 8" in shown


def test_who_stops_before_the_first_choice_is_told_of_no_file(config, tmp_path, monkeypatch):
    there = config(tmp_path / "c.jsonl", labeller="person", annotator="ann", pairs=8)
    typed(monkeypatch, ["q"])
    told = run_collect(there).summary()
    assert told == "no comparisons yet (0 were there before; left out: none); stopped, the same command goes on"
    assert not (tmp_path / "c.jsonl").exists()
    assert kept_in(tmp_path / "c.jsonl") == "nothing was compared yet: the same command begins again"
    typed(monkeypatch, ["s", "q"])
    run_collect(there)
    assert kept_in(tmp_path / "c.jsonl").startswith(f"{tmp_path / 'c.left-out.jsonl'} keeps what was compared")
    typed(monkeypatch, ["1", "q"])
    assert f"1 comparisons in {tmp_path / 'c.jsonl'} (0 were" in run_collect(there).summary()
    assert kept_in(tmp_path / "c.jsonl").startswith(f"{tmp_path / 'c.jsonl'} keeps what was compared")


def test_nobody_is_asked_about_the_same_two_texts_twice(config, tmp_path, monkeypatch):
    """Completions of one token come again and again."""
    there = config(
        tmp_path / "c.jsonl", labeller="person", annotator="ann", pairs=60, max_new_tokens=1, temperature=0.4
    )
    typed(monkeypatch, ["1"] * 60)
    result = run_collect(there)
    rows = read_rows(tmp_path / "c.jsonl")
    assert result.left_out["compared before"] > 0
    assert len({(row["prompt"], *sorted((row["a"], row["b"]))) for row in rows}) == len(rows) == 60


def test_two_people_can_share_a_file_and_are_not_asked_the_same(config, tmp_path, monkeypatch):
    for name, pairs in (("ann", 3), ("bob", 6)):
        typed(monkeypatch, ["1"] * 3)
        run_collect(config(tmp_path / "c.jsonl", labeller="person", annotator=name, pairs=pairs))
    rows = read_rows(tmp_path / "c.jsonl")
    assert [row["annotator"] for row in rows] == ["ann"] * 3 + ["bob"] * 3
    assert len({row["provenance"]["number"] for row in rows}) == 6


def test_two_people_with_a_file_each_judge_the_same_pairs(config, tmp_path, monkeypatch):
    for name in ("ann", "bob"):
        typed(monkeypatch, ["1"] * 5)
        run_collect(config(tmp_path / f"{name}.jsonl", labeller="person", annotator=name, pairs=5))
    ann, bob = (read_rows(tmp_path / f"{name}.jsonl") for name in ("ann", "bob"))
    assert [(row["prompt"], row["a"], row["b"]) for row in ann] == [(row["prompt"], row["a"], row["b"]) for row in bob]


def test_texts_cannot_command_the_terminal():
    assert printable("a\x1b[2Jb\nc\td\r\x07é") == "a\ufffd[2Jb\nc\td\ufffd\ufffdé"
