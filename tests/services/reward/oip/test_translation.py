"""From inputs and parameters to what the contract has, and from results to tensors; what is wrong is named."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.models.rendering import RenderingError
from palate.oip.messages import message
from palate.v1 import reward_service_pb2 as reward
from services.reward.metrics import ItemOutcome
from services.reward.oip.items import read_items
from services.reward.oip.outputs import add_outputs, check_scored, wanted_outputs
from services.reward.oip.parameters import read_parameters
from services.reward.oip.signature import OUTPUTS
from services.reward.scoring import FailedItem, ScoredItem
from services.runtime.errors import Expired, InvalidRequest, ServiceError, TooLarge
from tests.oip_client import column, infer_request, outputs_of, table

DIGEST = "d" * 64


def items_of(*inputs, digest="", max_items=9, **fields):
    return read_items(infer_request(*inputs, **fields), digest, max_items)


def messages(*documents):
    return column("MESSAGES", [d if isinstance(d, bytes) else json.dumps(d).encode() for d in documents])


def said(role, content):
    return {"role": role, "content": content}


def test_texts():
    (prompt, completion), _ = items_of(column("RESPONSE", [b"yes", b"no"]), column("PROMPT", [b"Is it?", b""]))
    assert (prompt.text, completion.text) == ("Is it?", "yes")


def test_chat():
    talk = [said("system", "Be kind."), said("user", "Hi"), said("assistant", "Hello!")]
    (prompt, completion), (nothing, alone) = items_of(messages(talk, [said("assistant", "Hm.")]))
    assert [(m.role, m.content) for m in prompt.conversation.messages] == [("system", "Be kind."), ("user", "Hi")]
    assert [(m.role, m.content) for m in completion.conversation.messages] == [("assistant", "Hello!")]
    assert (nothing.text, alone.conversation.messages[0].content) == ("", "Hm.")


@pytest.mark.parametrize(("ids", "lengths"), [("INPUT_IDS", "SEQUENCE_LENGTH"), ("tokens", "sequence_lengths")])
def test_token_ids_are_cut_at_their_length(ids, lengths):
    items = items_of(table(ids, [[5, 6, 7], [8]]), column(lengths, [3, 1], "INT64"), digest=DIGEST)
    assert [list(item[1].token_ids.ids) for item in items] == [[5, 6, 7], [8]]
    assert {item[1].token_ids.tokenizer_digest for item in items} == {DIGEST}


def test_a_flat_column_is_one_too():
    flat = {**column("PROMPT", [b"a", b"b"]), "shape": [2]}
    assert len(items_of(flat, column("RESPONSE", [b"c", b"d"]))) == 2


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (b"\xff", "not UTF-8"),
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"1" * 5000, "not JSON"),
        (b"[]", "must be the assistant's"),
        (b"{}", "no list of messages"),
        (b"null", "no list of messages"),
        (["text"], "object of role and content"),
        ([said("user", "Hi")], "must be the assistant's"),
        ([{"role": "assistant"}], "object of role and content"),
        ([{**said("assistant", "x"), "name": "y"}], "object of role and content"),
        ([said("assistant", None)], "must be strings"),
        ([said("assistant", "\ud800")], "lone surrogate"),
        ([said("user", "x"), [1]], "object of role and content"),
    ],
)
def test_a_bad_conversation_is_the_error_of_its_item_alone(document, message):
    good, bad = items_of(messages([said("assistant", "x")], document))
    assert isinstance(good, tuple)
    assert isinstance(bad, RenderingError)
    assert message in str(bad)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_any_json_is_an_item_or_an_error(document):
    (item,) = items_of(messages(document))
    assert isinstance(item, tuple | RenderingError)


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_any_bytes_are_texts_or_an_error(prompt, completion):
    (item,) = items_of(column("PROMPT", [prompt]), column("RESPONSE", [completion]))
    assert isinstance(item, RenderingError) or [c.text.encode() for c in item] == [prompt, completion]


@given(st.integers(-(2**63), 2**63 - 1))
def test_any_id_is_passed_on_or_an_error(token):
    (item,) = items_of(table("INPUT_IDS", [[token]]), column("SEQUENCE_LENGTH", [1], "INT64"), digest=DIGEST)
    assert isinstance(item, RenderingError) or list(item[1].token_ids.ids) == [token]


A, B = column("PROMPT", [b"a"]), column("RESPONSE", [b"b"])
IDS, LENGTH = table("INPUT_IDS", [[1, 2]]), column("SEQUENCE_LENGTH", [2], "INT64")


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ([], "inputs are none"),
        ([A], "inputs are PROMPT; send"),
        ([A, B, messages([])], "PROMPT and RESPONSE and MESSAGES; send"),
        ([A, A], "PROMPT is there twice"),
        ([A, column("REPLY", [b"b"])], "no input 'REPLY'; inputs are PROMPT"),
        ([A, column("RESPONSE", [b"b", b"c"])], "different numbers of items"),
        ([A, {**B, "datatype": "FP32"}], "'RESPONSE' is BYTES, not 'FP32'"),
        ([A, {**B, "shape": []}], "'RESPONSE' has shape"),
        (
            [A, {**B, "shape": [-1, 1]}],
            r"'RESPONSE' has shape \[-1, 1\]; what is sent has a size: give the number of items",
        ),
        ([A, {**B, "shape": [1, 2]}], "'RESPONSE' has shape"),
        ([A, {**B, "shape": [1, 1, 1]}], "'RESPONSE' has shape"),
        ([A, {**B, "shape": [0, 1]}], "nothing to score"),
        ([A, {**B, "parameters": {"shared_memory_region": {"string_param": "r"}}}], "'RESPONSE' has parameters"),
        ([IDS, LENGTH], "tokenizer_digest"),
    ],
)
def test_wrong_inputs_are_named(inputs, says):
    with pytest.raises(InvalidRequest, match=says):
        items_of(*inputs)


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ([A, B], "belong together"),
        ([{**IDS, "shape": [2]}, LENGTH], "'INPUT_IDS' has shape"),
        ([{**IDS, "shape": [1, 3]}, LENGTH], "'INPUT_IDS': INT64 of shape"),
        ([IDS, column("SEQUENCE_LENGTH", [3], "INT64")], "SEQUENCE_LENGTH is 3 for item 0"),
        ([IDS, column("SEQUENCE_LENGTH", [-1], "INT64")], "SEQUENCE_LENGTH is -1 for item 0"),
    ],
)
def test_wrong_ids_are_named(inputs, says):
    with pytest.raises(InvalidRequest, match=says):
        items_of(*inputs, digest=DIGEST)


def test_too_many_items_are_refused_before_their_contents_are_read():
    claimed = {"name": "MESSAGES", "datatype": "BYTES", "shape": [2**62, 1]}
    with pytest.raises(TooLarge, match="takes 9"):
        items_of(claimed, raw=[b"\xff" * 100])


def parameters(**values):
    return read_parameters(infer_request(parameters=values).parameters)


def test_parameters():
    given_none = parameters()
    assert given_none.seconds == math.inf
    assert (given_none.priority, given_none.truncation, given_none.partial) == (0, 0, False)
    given_all = parameters(priority=1, timeout=1500, truncation="left", partial=True, tokenizer_digest="d")
    assert given_all.priority == reward.PRIORITY_HIGH
    assert given_all.truncation == reward.TRUNCATION_LEFT
    assert (given_all.seconds, given_all.partial, given_all.tokenizer_digest) == (0.0015, True, "d")


@pytest.mark.parametrize(
    "wrong",
    [
        {"sequence_id": 3}, {"priority": 4}, {"priority": -1}, {"priority": "high"}, {"timeout": -1}, {"timeout": 0.5},
        {"truncation": "middle"}, {"truncation": 1}, {"partial": 1}, {"partial": "true"}, {"tokenizer_digest": 1},
    ],
)  # fmt: skip
def test_wrong_parameters_are_named(wrong):
    (name,) = wrong
    with pytest.raises(InvalidRequest, match=name):
        parameters(**wrong)


def test_unset_parameters_are_wrong():
    request = infer_request()
    request.parameters["priority"].SetInParent()
    with pytest.raises(InvalidRequest, match="priority is a int64_param"):
        read_parameters(request.parameters)


def requested(*names):
    return infer_request(outputs=names).outputs


def test_outputs_are_those_asked_for_or_all():
    assert wanted_outputs([], partial=False) == wanted_outputs([], partial=True) == list(OUTPUTS)
    assert wanted_outputs(requested("TOKENS", "rewards"), partial=False) == ["TOKENS", "rewards"]
    assert wanted_outputs(requested("REWARD"), partial=True) == ["REWARD", "STATUS"]
    for names, says in ((["LOSS"], "no output 'LOSS'"), (["REWARD", "REWARD"], "twice")):
        with pytest.raises(InvalidRequest, match=says):
            wanted_outputs(requested(*names), partial=False)
    classified = message("ModelInferRequest").InferRequestedOutputTensor(name="REWARD")
    classified.parameters["classification"].int64_param = 1
    with pytest.raises(InvalidRequest, match="'REWARD' has parameters"):
        wanted_outputs([classified], partial=False)


SCORED = ScoredItem(0.5, (0.5,), None, 7, 2)
FAILED = FailedItem(ItemOutcome.TOO_LONG, "too long; shorten it")


def test_failed_items_are_nan_with_a_status():
    response = message("ModelInferResponse")()
    add_outputs(response, [*OUTPUTS, "rewards"], [SCORED, FAILED], raw=False)
    found = outputs_of(response)
    assert found["rewards"][0] == found["REWARD"][0] == 0.5
    assert math.isnan(found["REWARD"][1])
    assert found["STATUS"] == [0, reward.ITEM_ERROR_CODE_TOO_LONG]
    assert found["TOKENS"] == [7, -1]
    assert found["TRUNCATED"] == [True, False]
    assert found["ERROR"] == [b"", b"too long; shorten it"]


@pytest.mark.parametrize(
    ("outcome", "raised"),
    [
        (ItemOutcome.INVALID, InvalidRequest),
        (ItemOutcome.TOO_LONG, TooLarge),
        (ItemOutcome.EXPIRED, Expired),
        (ItemOutcome.FAILED, ServiceError),
    ],
)
def test_a_failed_item_fails_the_request_with_its_error(outcome, raised):
    check_scored([SCORED])
    with pytest.raises(raised, match=r"item 1: why \(2 of 3 items failed") as error:
        check_scored([SCORED, FailedItem(outcome, "why"), FAILED])
    assert type(error.value) is raised
