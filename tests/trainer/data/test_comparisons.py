from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.comparisons import (
    Comparison,
    pairs_from_labelled_sentences,
    read_comparisons,
    split_by_group,
)
from trainer.data.lines import DataError, write_rows

ROW = {"prompt": "p", "a": "x", "b": "y", "label": "b"}


def read(tmp_path, *rows):
    write_rows(tmp_path / "c.jsonl", rows)
    return read_comparisons(tmp_path / "c.jsonl")


def test_both_schemas_are_read(tmp_path):
    full = ROW | {"annotator": "ann", "group": "g", "margin": 2, "seconds": 3.5, "provenance": {}}
    found = read(tmp_path, full, {"prompt": "q", "chosen": "good", "rejected": "bad"}).rows
    assert found == (
        Comparison("p", "x", "y", "b", "ann", "g", 2.0),
        Comparison("q", "good", "bad", "a", "", "q", None),
    )
    assert [row.preference for row in found] == [0.0, 1.0]
    assert replace(found[0], label="tie").preference == 0.5


def said(*texts):
    """Messages of a user and an assistant in turns, the assistant's last."""
    roles = ("user", "assistant")[-len(texts) :] if len(texts) < 3 else ("user", "assistant", "user", "assistant")
    return [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]


@pytest.mark.parametrize(
    "row",
    [
        {"chosen": said("p", "good"), "rejected": said("p", "bad")},
        {"prompt": "p", "chosen": said("p", "good"), "rejected": said("p", "bad"), "score": 3},
        {"prompt": "p", "chosen": said("good"), "rejected": said("bad")},
        {"prompt": [{"role": "user", "content": "p"}], "chosen": said("good"), "rejected": said("bad")},
        {"prompt": "p", "a": said("good"), "b": said("bad"), "label": "a"},
        {"prompt": [{"role": "user", "content": "p"}], "chosen": "good", "rejected": "bad"},
    ],
)
def test_messages_are_read_as_the_texts_in_them(tmp_path, row):
    assert read(tmp_path, row).rows == (Comparison("p", "good", "bad", "a", "", "p"),)


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"chosen": said("p", "x"), "rejected": said("q", "y")}, "'chosen' and 'rejected' answer different conver"),
        ({"chosen": said("p", "x")[:1], "rejected": said("y")}, "'chosen' must end with a message of the role 'assi"),
        ({"chosen": [], "rejected": said("y")}, "'chosen' must end with a message"),
        ({"chosen": said(*"abcd"), "rejected": said(*"abcx")}, r"is a conversation \(user, assistant, user\); only"),
        ({"prompt": [], "chosen": "x", "rejected": "y"}, r"is a conversation \(\)"),
        ({"prompt": "p", "chosen": ["x"], "rejected": "y"}, "each entry must be an object with the texts 'role' and"),
    ],
)
def test_messages_that_are_no_question_with_two_answers_are_refused(tmp_path, row, complaint):
    with pytest.raises(DataError, match=rf"c\.jsonl:1: .*{complaint}"):
        read(tmp_path, row)


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        (
            {"prompt": "p", "a": "x", "label": "a"},
            r"'b' missing \(the row has 'a', 'label', 'prompt'\); a comparison is",
        ),
        ({"prompt": "p", "a": "x", "b": "y"}, "'label' missing"),
        ({"prompt": "p", "a": "x", "b": "y", "votes": []}, "'label' missing"),
        (ROW | {"votes": [{"annotator": "ann", "vote": "c"}]}, "'vote' is 'c'; it can be 'a', 'b' or 'tie'"),
        (ROW | {"votes": [{"annotator": "ann"}]}, "'vote' is 'None'"),
        (ROW | {"votes": [{"annotator": 7, "vote": "a"}]}, "'annotator' of a vote must be a text"),
        (ROW | {"votes": "aab"}, "'votes' must be a list of at most 1000"),
        (ROW | {"votes": ["a"] * 1001}, "'votes' must be a list of at most 1000"),
        ({"prompt": "p", "a": "x", "votes": ["a"]}, "'b' missing"),
        ({"prompt": "p", "chosen": "x"}, "'rejected' missing"),
        (
            {"text": "p"},
            r'.*; a comparison is \{"prompt", "chosen", "rejected"\}, \{"prompt", "a", "b", "label": "a", "b" or',
        ),
        ({"prompt": "p", "chosen": None, "rejected": "y"}, "'chosen' must be a text; it is null"),
        (ROW | {"label": "A"}, "'label' is 'A'; it can be 'a', 'b' or 'tie'"),
        (ROW | {"prompt": None}, "'prompt' must be a text; it is null"),
    ],
)
def test_wrong_rows_are_refused_with_their_place(tmp_path, row, complaint):
    with pytest.raises(DataError, match=rf"c.jsonl:2: {complaint}"):
        read(tmp_path, ROW, row)


def test_copies_identical_and_empty_rows_are_left_out_and_counted(tmp_path):
    found = read(tmp_path, ROW, ROW, ROW | {"annotator": "other"}, ROW | {"b": "x"}, ROW | {"a": " \n"})
    assert (len(found.rows), found.copies, found.identical, found.empty) == (2, 1, 1, 1)
    with pytest.raises(DataError, match="no comparison of two different completions"):
        read(tmp_path, ROW | {"b": "x"})


def test_who_says_the_same_twice_is_kept_and_counted_whichever_the_sides(tmp_path):
    named = ROW | {"annotator": "ann"}
    swapped = {"prompt": "p", "a": "y", "b": "x", "label": "a", "seconds": 2.0, "annotator": "ann"}
    found = read(tmp_path, named, swapped, named | {"label": "a"}, ROW, ROW | {"seconds": 3.0})
    assert (len(found.rows), found.copies, found.duplicates) == (5, 0, 1)


def test_votes_are_a_comparison_each(tmp_path):
    votes = [{"annotator": "ann", "vote": "a", "reason": "why"}, {"annotator": "bob", "vote": "tie"}, "b"]
    found = read(tmp_path, ROW | {"votes": votes}, ROW | {"votes": []})
    labels = [(row.annotator, row.label) for row in found.rows]
    assert labels == [("ann", "a"), ("bob", "tie"), ("", "b"), ("", "b")]
    assert (found.copies, found.duplicates) == (0, 0)


def test_keys_that_look_like_an_annotators_are_not_read_in_silence(tmp_path):
    votes = [{"worker": "ann", "vote": "a"}, {"vote": "b", "reason": "userland"}]
    found = read(tmp_path, ROW | {"votes": votes}, ROW | {"worker_id": "w1", "label_error": "none"})
    assert found.unread == ("worker", "worker_id")
    assert not any(row.annotator for row in found.rows)
    both = read(
        tmp_path, ROW | {"annotator": "ann", "worker_id": "w1"}, ROW | {"votes": [{**votes[0], "annotator": "b"}]}
    )
    assert both.unread == ()


def test_groups_can_stand_under_another_key(tmp_path):
    write_rows(tmp_path / "c.jsonl", [ROW | {"topic": "t", "group": "g"}, ROW | {"a": "z"}])
    with pytest.raises(DataError, match=r"c.jsonl:2: 'topic' must be a text; it is missing"):
        read_comparisons(tmp_path / "c.jsonl", "topic")
    write_rows(tmp_path / "c.jsonl", [ROW | {"topic": "t", "group": "g"}])
    assert read_comparisons(tmp_path / "c.jsonl", "topic").rows[0].group == "t"


def linked_parts(rows):
    """How many parts there are when rows that share a group or a prompt belong together, by merging sets."""
    parts = []
    for row in rows:
        keys = {f"group {row.group}", f"prompt {row.prompt}"}
        touching = [part for part in parts if part & keys]
        parts = [part for part in parts if not part & keys] + [keys.union(*touching)]
    return len(parts)


groups = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 8)), min_size=2, max_size=40)


@given(groups, st.floats(0.05, 0.9), st.integers(0, 5))
def test_no_group_and_no_prompt_is_on_both_sides(drawn, share, seed):
    rows = [Comparison(f"p{prompt}", f"a{i}", "b", "a", "", f"g{group}") for i, (group, prompt) in enumerate(drawn)]
    if linked_parts(rows) == 1:
        with pytest.raises(DataError, match="cannot be split"):
            split_by_group(rows, share, Random(seed))
        return
    rest, held_out = split_by_group(rows, share, Random(seed))
    assert rest
    assert held_out
    assert sorted(rest + held_out, key=rows.index) == rows
    for key in ("group", "prompt"):
        assert not {getattr(row, key) for row in rest} & {getattr(row, key) for row in held_out}


def test_a_split_takes_about_the_share_and_depends_on_the_seed_alone():
    rows = [Comparison(f"p{i // 2}", f"a{i}", "b", "a", "", f"p{i // 2}") for i in range(200)]
    rest, held_out = split_by_group(rows, 0.2, Random(1))
    assert (len(rest), len(held_out)) == (160, 40)
    assert split_by_group(rows, 0.2, Random(1))[1] == held_out
    assert split_by_group(rows, 0.2, Random(2))[1] != held_out


def test_without_prompts_a_shared_text_keeps_rows_together():
    rows = [Comparison("", f"text {i % 5}", f"other {i}", "a", "", f"row {i}") for i in range(20)]
    rest, held_out = split_by_group(rows, 0.3, Random(0))
    assert not {row.a for row in rest} & {row.a for row in held_out}


def test_one_group_cannot_be_split():
    rows = [Comparison("p", f"a{i}", "b", "a", "", "g") for i in range(4)]
    with pytest.raises(DataError, match="cannot be split"):
        split_by_group(rows, 0.5, Random(0))


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 3), st.integers(0, 9))
def test_labelled_sentences_become_pairs_that_prefer_the_positive(positives, negatives, times, seed):
    positive, negative = [f"+{i}" for i in range(positives)], [f"-{i}" for i in range(negatives)]
    pairs = pairs_from_labelled_sentences(positive, negative, Random(seed), times)
    assert len(pairs) == times * max(positives, negatives)
    for pair in pairs:
        preferred, other = (pair.a, pair.b) if pair.label == "a" else (pair.b, pair.a)
        assert preferred.startswith("+")
        assert other.startswith("-")
    assert {text for pair in pairs for text in (pair.a, pair.b)} == {*positive, *negative}


def test_sides_of_sentence_pairs_are_shuffled_and_of_similar_length():
    rng = Random(0)
    positive, negative = (["+-"[k] * rng.randint(5, 100) for _ in range(400)] for k in (0, 1))
    pairs = pairs_from_labelled_sentences(positive, negative, rng)
    assert 150 < sum(pair.label == "a" for pair in pairs) < 250
    assert sum(abs(len(pair.a) - len(pair.b)) for pair in pairs) / len(pairs) < 15
