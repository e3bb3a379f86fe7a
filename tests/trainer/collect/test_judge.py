import json
import math

import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from palate.client import PolicyClient
from tests.json_lines import read_rows
from tests.servers import start_server
from tests.tiny_models import make_tiny_policy
from trainer.collect import run_collect
from trainer.collect.judge import Reading, judged, opened_judge
from trainer.collect.labelling import Labelled, LeftOut
from trainer.collect.pairs import DrawnPair, Place
from trainer.collect.principles import DEFAULT, question, read_principles
from trainer.data.comparisons import read_comparisons
from trainer.data.lines import DataError
from trainer.data.prompts import PromptRow

ANSWERS = ("Ask ten people first.", "What a plan!", "No.", "Work out the cost, then the price.", "Maybe, maybe not.")


def make_judge(folder):
    """A tiny policy that says A or B and nothing else; which, depends on all it has read."""
    make_tiny_policy(folder, 3, chat=True, tied=False, max_tokens=2048)
    model, tokenizer = LlamaForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    letters = [tokenizer.convert_tokens_to_ids(letter) for letter in "AB"]
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 0] = 2.0  # one dimension that is positive whatever is read
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[0] = layer.mlp.down_proj.weight[0] = 0.0
        model.lm_head.weight[:, 0] = -40.0
        model.lm_head.weight[letters, 0] = 40.0
        leans = [log_odds(model, tokenizer, question(read_principles(DEFAULT), "Why?", a, b)) for a, b in sides()]
        hidden = model.model(torch.tensor([ids_of(tokenizer, "Why?")])).last_hidden_state[0, -1, 0]
        model.lm_head.weight[letters[0], 0] -= torch.tensor(leans).median() / hidden  # neither place is liked better
    model.save_pretrained(folder)
    return folder


def sides():
    return [(a, b) for a in ANSWERS for b in ANSWERS if a != b]


def ids_of(tokenizer, text):
    messages = [{"role": "user", "content": text}]
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)


def letter_logprobs(model, tokenizer, text):
    with torch.inference_mode():
        logits = model(torch.tensor([ids_of(tokenizer, text)])).logits[0, -1]
    return logits.log_softmax(-1)[[tokenizer.convert_tokens_to_ids(letter) for letter in "AB"]].tolist()


def log_odds(model, tokenizer, text):
    first, second = letter_logprobs(model, tokenizer, text)
    return first - second


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    """(address of the judge, its folder)."""
    folder = make_judge(tmp_path_factory.mktemp("judge") / "judge")
    with start_server("services.policy", folder) as server:
        yield server.target, folder


def pairs():
    prompt = PromptRow("Should I open a bakery?", "")
    return [DrawnPair(Place(number, prompt, 0), a, b, ("STOP", "STOP")) for number, (a, b) in enumerate(sides())]


def test_its_preference_is_that_of_the_letters_in_both_orders(config, judge, tmp_path):
    model, tokenizer = LlamaForCausalLM.from_pretrained(judge[1]), AutoTokenizer.from_pretrained(judge[1])
    asked, principles = pairs(), read_principles(DEFAULT)
    with opened_judge(config(tmp_path, labeller="judge", judge=judge[0])) as labeller:
        verdicts = list(labeller.verdicts(asked))
    for pair, verdict in zip(asked, verdicts, strict=True):
        prompt = pair.place.prompt.text
        straight = log_odds(model, tokenizer, question(principles, prompt, pair.a, pair.b))
        swapped = -log_odds(model, tokenizer, question(principles, prompt, pair.b, pair.a))
        assert isinstance(verdict, Labelled)
        assert verdict.pair is pair
        judgement = verdict.provenance["judgement"]
        assert judgement["leans"] == pytest.approx([straight, swapped], abs=1e-3)
        assert judgement["margin"] == pytest.approx((straight + swapped) / 2, abs=1e-3)
        if min(abs(straight), abs(swapped)) > 1e-3:
            assert verdict.label == ("tie" if straight * swapped < 0 else "a" if straight > 0 else "b")
        assert verdict.annotator.startswith("judge:")
    assert {verdict.label for verdict in verdicts} == {"a", "b", "tie"}


def test_sides_make_no_difference(config, judge, tmp_path):
    """Every pair is asked both ways round, so that a pair turned around gets the label turned around."""
    asked = pairs()
    turned = [DrawnPair(pair.place, pair.b, pair.a, pair.finish_reasons) for pair in asked]
    with opened_judge(config(tmp_path, labeller="judge", judge=judge[0])) as labeller:
        straight, back = ([v.label for v in labeller.verdicts(each)] for each in (asked, turned))
    assert back == [{"a": "b", "b": "a", "tie": "tie"}[label] for label in straight]


def test_what_it_judged_is_written_down_and_gone_on_with(config, judge, tmp_path):
    there = {"labeller": "judge", "judge": judge[0]}
    assert run_collect(config(tmp_path / "c.jsonl", pairs=5, **there)).comparisons == 5
    assert run_collect(config(tmp_path / "c.jsonl", pairs=9, **there)).resumed == 5
    run_collect(config(tmp_path / "whole.jsonl", pairs=9, **there))
    rows, whole = (read_rows(tmp_path / f"{name}.jsonl") for name in ("c", "whole"))
    assert [row["label"] for row in rows] == [row["label"] for row in whole]
    assert len(read_comparisons(tmp_path / "c.jsonl").rows) == 9
    with PolicyClient(judge[0]) as client:
        info = client.policy_info()
    assert rows[0]["provenance"]["judge"]["policy_version"]["digest"] == info.policy_version.digest
    (tmp_path / "other.yaml").write_text("principles: [Shorter is better.]")
    with pytest.raises(DataError, match="collected with another judge"):
        run_collect(config(tmp_path / "c.jsonl", pairs=12, **there, principles=tmp_path / "other.yaml"))


def test_an_answer_that_cannot_be_read_is_no_label(config, served, tmp_path):
    """A policy that was never taught to answer says a letter hardly ever."""
    with opened_judge(config(tmp_path, labeller="judge", judge=served[0], principles=short(tmp_path))) as labeller:
        verdicts = list(labeller.verdicts(pairs()[:3]))
    assert all(isinstance(verdict, LeftOut) and verdict.cause == "unreadable" for verdict in verdicts)


def test_what_is_too_long_for_it_is_left_out_and_the_rest_is_judged(config, judge, tmp_path):
    asked = pairs()[:3]
    asked[1] = DrawnPair(asked[1].place, "word " * 2000, "No.", ("STOP", "STOP"))
    with opened_judge(config(tmp_path, labeller="judge", judge=judge[0])) as labeller:
        first, long, last = labeller.verdicts(asked)
    assert isinstance(first, Labelled)
    assert isinstance(last, Labelled)
    assert isinstance(long, LeftOut)
    assert long.cause == "refused by the judge"


def test_unreadable_answers_end_in_an_error_that_says_so(config, served, tmp_path):
    there = {"labeller": "judge", "judge": served[0], "principles": short(tmp_path), "pairs": 2}
    with pytest.raises(
        DataError, match=r"holds 0 of 2 .* left out: \d+ unreadable.* The judge hardly ever answers A or B"
    ):
        run_collect(config(tmp_path / "c.jsonl", **there))
    assert not (tmp_path / "c.jsonl").exists()
    left_out = (tmp_path / "c.left-out.jsonl").read_text().splitlines()
    assert {json.loads(line)["left_out"] for line in left_out} == {"unreadable"}


def short(folder):
    file = folder / "short.yaml"
    file.write_text("principles: [Be brief.]")
    return file


def test_a_preference_that_turns_with_the_order_is_a_tie():
    assert [judged(leans) for leans in ((1.0, 0.1), (-1.0, -0.1), (5.0, -0.1), (-5.0, 0.1), (0.0, 1.0))] == [
        *("a", "b", "tie", "tie", "tie")
    ]
    reading = Reading(math.log(0.6), math.log(0.3))
    assert reading.mass == pytest.approx(0.9)
    assert reading.lean == pytest.approx(math.log(2))


@pytest.mark.parametrize(
    "content",
    ["", "principles: []", "principles: ['']", "principles: [1]", "principles: text", "other: [a]", "a: 1\na: 2",
     "principles: [a]\nmore: 1", "principles: ['" + "a" * 2001 + "']", "{", "principles: [a]\n\xff"],
)  # fmt: skip
def test_principles_that_cannot_be_used_are_refused(tmp_path, content):
    (tmp_path / "p.yaml").write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=r"p\.yaml"):
        read_principles(tmp_path / "p.yaml")
    with pytest.raises(DataError, match=r"missing\.yaml cannot be read: No such file or directory$"):
        read_principles(tmp_path / "missing.yaml")


def test_the_default_principles_are_readable():
    assert len(read_principles(DEFAULT)) >= 3
