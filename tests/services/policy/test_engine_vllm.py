"""What is said to vLLM and read from it, without vLLM: plain values stand for its objects here."""

import math
import os
import sys
from types import SimpleNamespace

import pytest
import torch
from prometheus_client import CollectorRegistry

from palate.client import PolicyVersion
from services.policy.__main__ import _engine
from services.policy.config import PolicyConfig
from services.policy.drawing import BatchLimits, Drawing
from services.policy.engine import DecodeStep, DrawnToken, EndedRow, Row
from services.policy.engine_transformers import ModelError, TransformersEngine
from services.policy.engine_vllm import (
    Requests,
    VllmBatch,
    VllmEngine,
    completion_logprobs,
    decode_step,
    engine_arguments,
    sampling_arguments,
)
from services.policy.jobs import Group, Job, Wanted
from services.policy.metrics import PolicyMetrics
from services.policy.sampling import Sampling, row_seed
from services.policy.staging import Served
from services.runtime.errors import InvalidRequest
from services.runtime.listening import StartupError
from tests.tiny_models import make_tiny_policy


def row(key=7, *, temperature=0.8, new=10, ignore_eos=False, token_ids=()):
    return Row(key, (1, 2), (1 << 64) - 3, Sampling(temperature, 5, 0.9, new, ignore_eos), token_ids)


def output(key, tokens, reason=None):
    """A RequestOutput with what is new."""
    logprobs = [{token: SimpleNamespace(logprob=logprob)} for token, logprob in tokens]
    completion = SimpleNamespace(token_ids=[token for token, _ in tokens], logprobs=logprobs, finish_reason=reason)
    return SimpleNamespace(request_id=str(key), outputs=[completion], prompt_logprobs=None)


class Recorder:
    """Takes an LLMEngine's calls down, and steps through outputs that are given."""

    def __init__(self, *steps):
        self.asked, self.aborted, self.steps = {}, [], list(steps)
        self.loaded, self.resets = [], 0
        self.model_config = SimpleNamespace(max_model_len=64)

    def add_request(self, name, prompt, params):
        self.asked[name] = (prompt["prompt_token_ids"], params)

    def abort_request(self, names):
        self.aborted += names

    def step(self):
        return self.steps.pop(0)

    def collective_rpc(self, method, kwargs):
        assert method == "reload_weights"
        self.loaded.append(dict(kwargs["weights_iterator"]))

    def reset_prefix_cache(self):
        self.resets += 1
        return True


def test_a_row_is_asked_for_with_its_sampling_and_seed():
    asked = sampling_arguments(row(), (2, 3))
    assert (asked["temperature"], asked["top_k"], asked["top_p"], asked["max_tokens"]) == (0.8, 5, 0.9, 10)
    assert (asked["logprobs"], asked["detokenize"]) == (0, False)
    assert (asked["stop_token_ids"], asked["ignore_eos"]) == ([2, 3], False)
    assert asked["seed"] == (1 << 63) - 3  # torch takes 63 bits and a sign
    assert sampling_arguments(row(ignore_eos=True), (2, 3))["stop_token_ids"] == []


def test_a_row_that_goes_on_has_less_to_come_and_another_seed():
    rest, again = (sampling_arguments(row(token_ids=ids), ()) for ids in ((4, 5, 6), (4, 5, 6)))
    assert rest == again
    assert rest["max_tokens"] == 7
    assert rest["seed"] == row_seed((1 << 64) - 3, 3) & ((1 << 63) - 1)


@pytest.mark.parametrize("temperature", [0.001, 2.5])
def test_a_temperature_that_vllm_does_not_draw_at_is_refused(temperature):
    with pytest.raises(InvalidRequest, match=r"0\.01 to 2\.0"):
        sampling_arguments(row(temperature=temperature), ())


def test_the_engine_is_told_to_give_logprobs_of_what_was_drawn_from(tmp_path):
    told = engine_arguments(tmp_path, "bfloat16", 32, 256)
    assert (told["model"], told["dtype"], told["max_num_seqs"]) == (str(tmp_path), "bfloat16", 32)
    assert told["max_model_len"] == 256  # more than the model was made for is refused
    assert told["enforce_eager"] is False
    assert (told["logprobs_mode"], told["trust_remote_code"]) == ("processed_logprobs", False)


def test_a_step_is_read_token_by_token_and_row_by_row():
    outputs = [output(3, [(9, -0.5)]), output(4, [(8, -1.0), (2, -2.0)], "stop"), output(5, [(1, 0.0)], "length")]
    assert decode_step(outputs) == DecodeStep(
        (DrawnToken(3, 9, -0.5), DrawnToken(4, 8, -1.0), DrawnToken(4, 2, -2.0), DrawnToken(5, 1, 0.0)),
        (EndedRow(4, True), EndedRow(5, False)),
    )
    assert decode_step([output(3, [], "length")]) == DecodeStep((), (EndedRow(3, False),))


def test_an_end_that_should_not_be_is_an_error():
    with pytest.raises(RuntimeError, match="'abort'"):
        decode_step([output(3, [], "abort")])


def test_logprobs_of_a_completion_are_those_behind_its_prompt():
    found = [None, *({token: SimpleNamespace(logprob=-token)} for token in (5, 6, 7))]
    assert completion_logprobs(found, (4, 5), (6, 7)) == [-6, -7]


def test_rows_come_and_go_under_their_keys():
    vllm = Recorder([output(7, [(3, -1.0)]), output(8, [(4, -2.0)])])
    batch = VllmBatch(Requests(vllm, dict), (2,))
    batch.join([row(7), row(8, token_ids=(5,))])
    assert vllm.asked["8"][0] == [1, 2, 5]
    assert [token.key for token in batch.step().tokens] == [7, 8]
    assert batch.leave([8]) == {8: None}
    assert vllm.aborted == ["8"]


async def test_rows_of_a_step_that_failed_are_ended_and_asked_for_again_one_half_after_the_other():
    failing = [output(7, [(3, -1.0)]), output(8, [], "abort")]
    vllm = Recorder([output(7, [(5, -1.0)]), output(8, [(6, -1.0)])], failing)
    engine = SimpleNamespace(one_batch=True, joins=True, batch=lambda weights: VllmBatch(Requests(vllm, dict), ()))
    publication = SimpleNamespace(interruptions=0, current=Served(PolicyVersion(), None))
    drawing = Drawing(engine, publication, BatchLimits(4, 100), PolicyMetrics(CollectorRegistry()))
    job = Job(9, math.inf, groups=[Group((Wanted(key, 0, row(key)),)) for key in (7, 8)])
    drawing.add(job)
    for _ in range(2):
        list(drawing.round())
    assert vllm.aborted == ["7", "8"]
    vllm.asked.clear()
    for reason in (None, "length"):
        vllm.steps.append([output(7, [(3, -1.0)], reason)])
        list(drawing.round())
    assert vllm.asked.keys() == {"7"}  # the other waits: a step would draw for both
    assert vllm.asked["7"][0] == [1, 2, 5]
    vllm.steps.append([output(8, [(3, -1.0)], "length")])
    events = [event for step in drawing.round() for happened in step for event in happened.events]
    assert vllm.asked["8"][0] == [1, 2, 6]
    assert [event.token_ids for event in events] == [(6, 3)]


def test_rows_that_are_refused_leave_nothing_behind():
    vllm = Recorder()
    with pytest.raises(InvalidRequest):
        VllmBatch(Requests(vllm, dict), (2,)).join([row(7), row(8, temperature=0.001)])
    assert vllm.aborted == ["7"]


def test_what_rows_draw_while_a_sequence_is_read_is_told_with_the_next_step():
    read = SimpleNamespace(
        request_id="sequence-0",
        prompt_logprobs=[None, {6: SimpleNamespace(logprob=-0.25)}],
        outputs=[SimpleNamespace(token_ids=[1], logprobs=None, finish_reason="length")],
    )
    vllm = Recorder([output(7, [(3, -1.0)])], [output(7, [(4, -1.5)]), output(8, [(5, -2.0)]), read])
    requests = Requests(vllm, dict)
    batch = VllmBatch(requests, ())
    assert requests.prompt_logprobs([((4,), (6,))]) == [[-0.25]]
    ids, params = vllm.asked["sequence-0"]
    assert (ids, params["prompt_logprobs"], params["max_tokens"]) == ([4, 6], 0, 1)
    batch.leave([8])
    assert batch.step().tokens == (DrawnToken(7, 3, -1.0), DrawnToken(7, 4, -1.5))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_policy(tmp_path_factory.mktemp("policy"), seed=0)


def test_other_weights_come_in_with_the_first_batch_of_them(folder, tmp_path):
    _, first = TransformersEngine.load(folder, "float32")
    vllm = Recorder()
    engine = VllmEngine(first, "float32", 2, vllm, dict)
    assert (engine.name, engine.joins, engine.strict, engine.one_batch) == ("vllm", True, False, True)
    engine.batch(first)
    assert vllm.loaded == []
    second = engine.build({name: tensor + 1 for name, tensor in engine.tensors(first).items()})
    for _ in range(2):
        engine.batch(second)
    (loaded,) = vllm.loaded
    assert loaded.keys() == engine.tensors(first).keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in engine.tensors(second).items())
    assert vllm.resets == 1  # prefixes read under the former weights are forgotten
    pair = [((1, 5, 9), (4, 7))]
    assert engine.logprobs(first, pair, 1.0) == TransformersEngine.logprobs(engine, first, pair, 1.0)


def test_weights_whose_loading_broke_off_are_nobodys(folder):
    class Breaking(Recorder):
        def reset_prefix_cache(self):
            super().reset_prefix_cache()
            return self.resets > 1

    _, first = TransformersEngine.load(folder, "float32")
    vllm = Breaking()
    engine = VllmEngine(first, "float32", 2, vllm, dict)
    second = engine.build({name: tensor + 1 for name, tensor in engine.tensors(first).items()})
    with pytest.raises(RuntimeError, match="did not forget"):
        engine.batch(second)
    engine.batch(first)
    assert len(vllm.loaded) == 2
    assert all(torch.equal(vllm.loaded[1][name], tensor) for name, tensor in engine.tensors(first).items())


def test_sequences_of_the_most_tokens_are_read_on_the_processor(folder):
    _, weights = TransformersEngine.load(folder, "float32")
    vllm = Recorder()
    engine = VllmEngine(weights, "float32", 2, vllm, dict)
    pair = [(tuple(range(1, 61)), (4, 7, 5, 6))]
    assert engine.logprobs(weights, pair, 1.0) == TransformersEngine.logprobs(engine, weights, pair, 1.0)
    assert vllm.asked == {}


def test_without_vllm_the_engine_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    monkeypatch.setattr(os, "environ", {**os.environ, "VLLM_HOST_IP": "10.0.0.1"})
    with pytest.raises(ModelError, match=r"pip install 'palate\[vllm\]'"):
        VllmEngine.start(folder, "float32", 2, BatchLimits(4, 100), 64)
    told = ("VLLM_ENABLE_V1_MULTIPROCESSING", "TRITON_F32_DEFAULT", "VLLM_HOST_IP")
    assert [os.environ[name] for name in told] == ["0", "ieee", "10.0.0.1"]


def test_another_engine_is_not_told_to_be_eager(folder):
    with pytest.raises(StartupError, match="--eager is for --engine vllm"):
        _engine(PolicyConfig(model=folder, eager=True), None)
