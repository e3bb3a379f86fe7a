from collections import Counter

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from palate.models.weights import describe_tensors, untied_state_dict
from services.policy.engine import GenerationBatch, Row
from services.policy.engine_transformers import ModelError, TransformersEngine
from services.policy.sampling import Sampling, keep_likeliest, row_seed
from tests.tiny_models import make_tiny_policy


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_policy(tmp_path_factory.mktemp("policy"), seed=0)


@pytest.fixture(scope="module")
def loaded(folder):
    return TransformersEngine.load(folder, "float32")


@pytest.fixture(scope="module")
def model(folder):
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def sampling(temperature=1.0, top_k=0, top_p=1.0, new=24, ignore_eos=False):
    return Sampling(temperature, top_k, top_p, new, ignore_eos)


def some_rows(count):
    generator = torch.Generator().manual_seed(7)
    lengths = torch.randint(2, 14, (count,), generator=generator).tolist()
    prompts = [(1, *torch.randint(4, 320, (length,), generator=generator).tolist()) for length in lengths]
    return tuple(Row(prompt, row_seed(index, 0)) for index, prompt in enumerate(prompts))


def drawn(loaded, rows, params, ends_text=None):
    engine, weights = loaded
    steps = list(engine.decode(lambda: weights, GenerationBatch(tuple(rows), params, ends_text)))
    finished = {row.row: row for step in steps for row in step.finished}
    assert sorted(finished) == list(range(len(rows)))
    return [finished[index] for index in range(len(rows))]


def full_forward(model, row, ids, params):
    """Logprobs of one completion from one forward pass over all of it, alone and without a cache."""
    with torch.inference_mode():
        logits = model(torch.tensor([[*row.prompt_ids, *ids]])).logits[0, len(row.prompt_ids) - 1 : -1].float()
    logits = keep_likeliest(logits, params)
    return (logits / params.temperature).log_softmax(-1)[range(len(ids)), list(ids)].tolist()


def assert_near(one, other, tolerance=1e-4):
    assert torch.allclose(torch.tensor(one), torch.tensor(other), rtol=0, atol=tolerance)


def test_a_row_draws_the_same_alone_and_in_any_batch(loaded):
    rows, params = some_rows(64), sampling()
    in_64 = drawn(loaded, rows, params)
    in_8 = drawn(loaded, rows[8:16], params)
    for place in range(8):
        (alone,) = drawn(loaded, [rows[8 + place]], params)
        assert alone.token_ids == in_8[place].token_ids == in_64[8 + place].token_ids
        assert_near(alone.logprobs, in_8[place].logprobs)
        assert_near(alone.logprobs, in_64[8 + place].logprobs)


@pytest.mark.parametrize(
    "params",
    [
        sampling(),
        sampling(0.6),
        sampling(1.8),
        sampling(1.0, top_k=5),
        sampling(0.8, top_p=0.7),
        sampling(1.3, 40, 0.9),
    ],
)
def test_recorded_logprobs_equal_a_full_forward(loaded, model, params):
    rows = some_rows(16)
    for row, result in zip(rows, drawn(loaded, rows, params), strict=True):
        assert_near(result.logprobs, full_forward(model, row, result.token_ids, params))


def test_the_likeliest_tokens_are_those_of_transformers_own_generate(loaded, model):
    rows = some_rows(6)
    for row, result in zip(rows, drawn(loaded, rows, sampling(top_k=1, new=12)), strict=True):
        prompt = torch.tensor([row.prompt_ids])
        expected = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=12, pad_token_id=3
        )[0, prompt.shape[1] :].tolist()
        assert list(result.token_ids) == expected
        assert result.logprobs == (0.0,) * len(expected)  # the only token that could be drawn


def test_completions_of_one_prompt_differ_and_do_not_depend_on_sharing_it(loaded):
    prompt = some_rows(1)[0].prompt_ids
    rows = [Row(prompt, row_seed(1, index)) for index in range(4)]
    together = drawn(loaded, rows, sampling())
    assert len({result.token_ids for result in together}) == 4
    for row, result in zip(rows, together, strict=True):
        (alone,) = drawn(loaded, [row], sampling())
        assert alone.token_ids == result.token_ids


def test_ends_at_the_drawn_end_of_sequence_token(loaded, model):
    rows, params = some_rows(48), sampling(1.5, new=120)
    results = drawn(loaded, rows, params)
    assert 5 < sum(result.stopped for result in results) < 48  # both ways of ending are seen
    for row, result in zip(rows, results, strict=True):
        assert (result.token_ids[-1] == 2) is result.stopped
        assert 2 not in result.token_ids[:-1]
        assert result.stopped or len(result.token_ids) == 120
        # Rows that ended were dropped from the batch on the way; what is left still has the right logprobs and noise.
        assert_near(result.logprobs, full_forward(model, row, result.token_ids, params))
    survivors = [(row, result) for row, result in zip(rows, results, strict=True) if not result.stopped]
    for row, result in survivors[:4]:
        (alone,) = drawn(loaded, [row], params)
        assert alone.token_ids == result.token_ids


def test_the_tokenizers_end_of_sequence_token_ends_too(folder):
    loaded = TransformersEngine.load(folder, "float32", eos_token_id=7)
    assert loaded[0].eos_token_ids == (7, 2)
    results = drawn(loaded, some_rows(48), sampling(1.5, new=100))
    assert {result.token_ids[-1] for result in results if result.stopped} == {2, 7}


def test_ignores_the_end_of_sequence_token_when_told_to(loaded):
    results = drawn(loaded, some_rows(24), sampling(1.5, new=80, ignore_eos=True))
    assert {len(result.token_ids) for result in results} == {80}
    assert any(2 in result.token_ids for result in results)
    assert not any(result.stopped for result in results)


def test_a_leading_bos_that_is_also_eos_ends_nothing(tmp_path):
    loaded = TransformersEngine.load(make_tiny_policy(tmp_path, seed=0, bos_is_eos=True), "float32")
    assert loaded[0].eos_token_ids == (1,)
    rows = [Row((1, 1, 9), row_seed(index, 0)) for index in range(40)]
    results = drawn(loaded, rows, sampling(1.5, new=60))
    assert Counter(result.stopped for result in results)[False] > 0
    assert Counter(result.stopped for result in results)[True] > 0
    assert all((result.token_ids[-1] == 1) is result.stopped for result in results)


def test_ends_where_the_caller_says_so(loaded):
    def ends(row, ids):
        return row == 1 and len(ids) == 3

    results = drawn(loaded, some_rows(3), sampling(new=10, ignore_eos=True), ends)
    assert [(len(result.token_ids), result.stopped) for result in results] == [(10, False), (3, True), (10, False)]


def test_leaving_the_iterator_leaves_the_work(loaded):
    engine, weights = loaded
    calls = []
    handle = weights.register_forward_pre_hook(lambda *_: calls.append(1))
    steps = engine.decode(lambda: weights, GenerationBatch(some_rows(4), sampling(new=50)))
    next(steps), next(steps)
    steps.close()
    handle.remove()
    assert len(calls) == 2


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_logprobs_of_given_completions(loaded, model, temperature):
    engine, weights = loaded
    rows, params = some_rows(12), sampling(temperature)
    results = drawn(loaded, rows, params)
    pairs = [(row.prompt_ids, result.token_ids) for row, result in zip(rows, results, strict=True)]
    for row, result, got in zip(rows, results, engine.logprobs(weights, pairs, temperature), strict=True):
        assert_near(got, result.logprobs)
        assert_near(got, full_forward(model, row, result.token_ids, params))


def test_bfloat16_records_what_it_draws_from(folder):
    engine, weights = TransformersEngine.load(folder, "bfloat16")
    assert {entry.dtype for entry in engine.describe(weights)} == {"BF16"}
    rows = some_rows(8)
    results = drawn((engine, weights), rows, sampling())
    pairs = [(row.prompt_ids, result.token_ids) for row, result in zip(rows, results, strict=True)]
    for result, got in zip(results, engine.logprobs(weights, pairs, 1.0), strict=True):
        difference = torch.tensor(got) - torch.tensor(result.logprobs)
        assert difference.abs().mean() < 0.05  # bfloat16 has 8 bits of mantissa


@pytest.mark.parametrize("tied", [True, False])
def test_built_weights_are_the_given_ones_to_the_bit(tmp_path, tied):
    engine, first = TransformersEngine.load(make_tiny_policy(tmp_path / "a", seed=0, tied=tied), "float32")
    _, other = TransformersEngine.load(make_tiny_policy(tmp_path / "b", seed=1, tied=tied), "float32")
    before = engine.describe(first)
    state = untied_state_dict(other)
    built = engine.build(state)
    assert engine.describe(built) == describe_tensors(state)
    assert engine.describe(first) == before
    assert not built.training
    rows = some_rows(4)
    expected = drawn((engine, other), rows, sampling())
    assert drawn((engine, built), rows, sampling()) == expected
    assert drawn((engine, first), rows, sampling()) != expected


def test_weights_that_lack_a_tensor_are_refused(loaded, model):
    engine, _ = loaded
    state = untied_state_dict(model)
    with pytest.raises(ModelError, match=r"lack model\.norm\.weight"):
        engine.build({name: tensor for name, tensor in state.items() if name != "model.norm.weight"})
    with pytest.raises(ModelError, match="no tensors called extra"):
        engine.build({**state, "extra": torch.zeros(1)})


def test_a_checkpoint_that_lacks_a_tensor_is_refused(tmp_path):
    folder = make_tiny_policy(tmp_path, seed=0)
    state = load_file(folder / "model.safetensors")
    del state["model.layers.1.mlp.up_proj.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks model\.layers\.1\.mlp\.up_proj\.weight"):
        TransformersEngine.load(folder, "float32")


def test_a_folder_without_weights_is_refused(tmp_path):
    folder = make_tiny_policy(tmp_path, seed=0)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="cannot be loaded"):
        TransformersEngine.load(folder, "float32")


@pytest.mark.parametrize("ignore_eos", [True, False])
def test_after_a_change_of_weights_every_token_is_drawn_from_the_new_ones(tmp_path, folder, loaded, model, ignore_eos):
    other_folder = make_tiny_policy(tmp_path, seed=1)
    (engine, first), (_, second) = loaded, TransformersEngine.load(other_folder, "float32")
    models = {id(first): model, id(second): AutoModelForCausalLM.from_pretrained(other_folder).eval()}
    rows, params = some_rows(64), sampling(1.5, new=60, ignore_eos=ignore_eos)
    changes = {0: first, 7: second, 8: first, 45: second}  # step: weights from then on
    used = []

    def weights():
        used.append(changes.get(len(used), used[-1] if used else None))
        return used[-1]

    finished = [row for step in engine.decode(weights, GenerationBatch(rows, params)) for row in step.finished]
    assert len(finished) == 64
    assert ignore_eos or sum(len(result.token_ids) < 45 for result in finished) >= 8  # rows were dropped on the way
    for result in finished:
        expected = {key: full_forward(m, rows[result.row], result.token_ids, params) for key, m in models.items()}
        assert_near(result.logprobs, [expected[id(used[place])][place] for place in range(len(result.token_ids))])


def test_a_change_to_the_same_numbers_changes_nothing(loaded):
    engine, weights = loaded
    copy = engine.build({name: tensor.clone() for name, tensor in untied_state_dict(weights).items()})
    rows, params = some_rows(6), sampling(new=30, ignore_eos=True)
    turns = iter([weights, copy] * 15)
    steps = list(engine.decode(lambda: next(turns), GenerationBatch(rows, params)))
    results = {row.row: row for row in steps[-1].finished}
    for index, alone in enumerate(drawn(loaded, rows, params)):
        assert results[index].token_ids == alone.token_ids
        assert_near(results[index].logprobs, alone.logprobs)


def test_every_step_tells_what_it_drew(loaded):
    engine, weights = loaded
    rows, params = some_rows(20), sampling(1.5, new=60)
    told = {row: [] for row in range(20)}
    for step in engine.decode(lambda: weights, GenerationBatch(rows, params)):
        for token in step.tokens:
            told[token.row].append((token.token_id, token.logprob))
        for row in step.finished:
            assert told.pop(row.row) == list(zip(row.token_ids, row.logprobs, strict=True))
    assert told == {}
