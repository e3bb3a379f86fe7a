import re
from collections import Counter
from dataclasses import dataclass, field, replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Lfm2Config, Lfm2ForCausalLM, Qwen2Config, Qwen2ForCausalLM

from palate.models.folder import FolderError
from palate.models.weights import describe_tensors, untied_state_dict
from services.policy.engine import Row
from services.policy.engine_transformers import ModelError, TransformersEngine
from services.policy.sampling import Sampling, keep_likeliest, row_seed
from tests.tiny_models import make_tiny_gpt2, make_tiny_policy


@pytest.fixture(scope="module", params=[make_tiny_policy, make_tiny_gpt2], ids=["llama", "gpt2"])
def make(request):
    """Positions turn the keys of one, and are added to the embeddings of the other."""
    return request.param


@pytest.fixture(scope="module")
def folder(tmp_path_factory, make):
    return make(tmp_path_factory.mktemp("policy"), seed=0)


@pytest.fixture(scope="module")
def loaded(folder):
    return TransformersEngine.load(folder, "float32")


@pytest.fixture(scope="module")
def model(folder):
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def sampling(temperature=1.0, top_k=0, top_p=1.0, new=24, ignore_eos=False):
    return Sampling(temperature, top_k, top_p, new, ignore_eos)


def some_rows(count, longest=14):
    """Rows whose sampling `drawn` says."""
    generator = torch.Generator().manual_seed(7)
    lengths = torch.randint(2, longest, (count,), generator=generator).tolist()
    prompts = [(1, *torch.randint(4, 320, (length,), generator=generator).tolist()) for length in lengths]
    return tuple(Row(key, prompt, row_seed(key, 0), sampling()) for key, prompt in enumerate(prompts))


@dataclass
class Result:
    token_ids: list = field(default_factory=list)
    logprobs: list = field(default_factory=list)
    stopped: bool | None = None


class Running:
    """A batch, and what it has drawn so far, by the rows' keys."""

    def __init__(self, loaded, results=None):
        engine, weights = loaded
        self.batch = engine.batch(weights)
        self.results = {} if results is None else results
        self.open = 0

    def join(self, *rows):
        for row in rows:
            self.results.setdefault(row.key, Result())
        self.batch.join(rows)
        self.open += len(rows)

    def move(self, rows, other):
        """Rows go on in another batch."""
        noise = self.batch.leave([row.key for row in rows])
        self.open -= len(rows)
        other.join(*(replace(r, token_ids=tuple(self.results[r.key].token_ids), noise=noise[r.key]) for r in rows))

    def steps(self, count=10_000):
        while self.open and count:
            step = self.batch.step()
            assert len({token.key for token in step.tokens}) == len(step.tokens) == self.open
            for token in step.tokens:
                self.results[token.key].token_ids.append(token.token_id)
                self.results[token.key].logprobs.append(token.logprob)
            for row in step.ended:
                assert self.results[row.key].stopped is None
                self.results[row.key].stopped = row.stopped
                self.open -= 1
            count -= 1


def drawn(loaded, rows, params):
    running = Running(loaded)
    running.join(*(replace(row, key=place, sampling=params) for place, row in enumerate(rows)))
    running.steps()
    return [running.results[place] for place in range(len(rows))]


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
        assert result.logprobs == [0.0] * len(expected)  # the only token that could be drawn


def test_completions_of_one_prompt_differ_and_do_not_depend_on_sharing_it(loaded):
    prompt = some_rows(1)[0].prompt_ids
    rows = [Row(index, prompt, row_seed(1, index), sampling()) for index in range(4)]
    together = drawn(loaded, rows, sampling())
    assert len({tuple(result.token_ids) for result in together}) == 4
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
    rows = [Row(index, (1, 1, 9), row_seed(index, 0), sampling()) for index in range(40)]
    results = drawn(loaded, rows, sampling(1.5, new=60))
    assert Counter(result.stopped for result in results)[False] > 0
    assert Counter(result.stopped for result in results)[True] > 0
    assert all((result.token_ids[-1] == 1) is result.stopped for result in results)


def test_rows_join_and_leave_between_steps_and_draw_as_they_would_alone(loaded, model):
    rows = [replace(row, sampling=sampling(new=4 + 7 * row.key % 40, ignore_eos=True)) for row in some_rows(40, 30)]
    running = Running(loaded)
    for wave in range(0, 40, 5):
        running.join(*rows[wave : wave + 5])
        running.steps(3)
    gone = [row for row in rows[-5:] if len(running.results[row.key].token_ids) < row.sampling.max_new_tokens]
    running.batch.leave([row.key for row in gone])
    running.open -= len(gone)
    running.steps()
    for row in rows:
        if row in gone:
            assert len(running.results[row.key].token_ids) == 3
            continue
        (alone,) = drawn(loaded, [row], row.sampling)
        assert running.results[row.key].token_ids == alone.token_ids
        assert_near(running.results[row.key].logprobs, alone.logprobs)
        assert_near(alone.logprobs, full_forward(model, row, alone.token_ids, row.sampling))


def test_a_row_whose_prompt_is_longer_than_all_that_was_read_joins(loaded):
    rows = [replace(row, sampling=sampling(new=20)) for row in (*some_rows(3, 4), Row(9, (1, *range(4, 90)), 3, None))]
    running = Running(loaded)
    running.join(*rows[:3])
    running.steps(2)
    running.join(rows[3])
    running.steps()
    for row in rows:
        (alone,) = drawn(loaded, [row], row.sampling)
        assert running.results[row.key].token_ids == alone.token_ids


def test_a_batch_without_rows_takes_new_ones(loaded):
    running, rows = Running(loaded), [replace(row, sampling=sampling(new=9)) for row in some_rows(6)]
    for row in rows:
        running.join(row)
        running.steps()
    assert [running.results[row.key] for row in rows] == [drawn(loaded, [row], row.sampling)[0] for row in rows]


def test_rows_of_different_sampling_share_a_batch(loaded, model):
    ways = (sampling(), sampling(0.5), sampling(1.3, 40, 0.9), sampling(new=3), sampling(top_k=1, ignore_eos=True))
    rows = [replace(row, sampling=ways[row.key % 5]) for row in some_rows(15)]
    running = Running(loaded)
    running.join(*rows)
    running.steps()
    for row in rows:
        result = running.results[row.key]
        assert len(result.token_ids) <= row.sampling.max_new_tokens
        assert_near(result.logprobs, full_forward(model, row, result.token_ids, row.sampling))


def test_the_same_rows_draw_the_same_bits(loaded):
    rows = some_rows(20)
    assert drawn(loaded, rows, sampling(1.5, new=60)) == drawn(loaded, rows, sampling(1.5, new=60))


def test_keys_outside_the_window_are_not_read(tmp_path):
    """A model with sliding layers, rows far apart in length, one of which joins late."""
    config = Qwen2Config(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.3, sliding_window=6, use_sliding_window=True, max_window_layers=1,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sliding = Qwen2ForCausalLM(config).eval().requires_grad_(False)
    assert set(config.layer_types) == {"full_attention", "sliding_attention"}
    engine = TransformersEngine(sliding, "float32")
    assert engine.joins
    running = Running((engine, sliding))
    way = sampling(new=20, ignore_eos=True)
    rows = [Row(key, tuple(range(4, 4 + length)), key, way) for key, length in enumerate((3, 14, 5, 30))]
    running.join(*rows[:2])
    running.steps(4)
    running.join(*rows[2:])
    running.steps()
    for row in rows:
        result = running.results[row.key]
        assert_near(result.logprobs, full_forward(sliding, row, result.token_ids, way))


def test_a_model_whose_rows_keep_more_than_keys_draws_those_that_begin_together():
    config = Lfm2Config(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.3, full_attn_idxs=[1], conv_L_cache=3,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        hybrid = Lfm2ForCausalLM(config).eval().requires_grad_(False)
    engine = TransformersEngine(hybrid, "float32")
    assert not engine.joins
    rows = [Row(key, (1, 5, 9, 4), key, sampling()) for key in range(12)]
    for row, result in zip(rows, drawn((engine, hybrid), rows, sampling(new=30)), strict=True):
        assert_near(result.logprobs, full_forward(hybrid, row, result.token_ids, sampling()))


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
    gone = next(reversed(state))
    with pytest.raises(ModelError, match=f"lack {re.escape(gone)}"):
        engine.build({name: tensor for name, tensor in state.items() if name != gone})
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


def test_a_gpu_that_is_not_there_is_refused(folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(FolderError, match="--device cuda, but PyTorch sees no GPU here; use --device cpu"):
        TransformersEngine.load(folder, "float32", device="cuda")


@pytest.mark.parametrize("ignore_eos", [True, False])
def test_after_a_change_of_weights_every_token_is_drawn_from_the_new_ones(tmp_path, make, loaded, model, ignore_eos):
    other_folder = make(tmp_path, seed=1)
    other = (loaded[0], TransformersEngine.load(other_folder, "float32")[1])
    models = {0: model, 1: AutoModelForCausalLM.from_pretrained(other_folder).eval()}
    params = sampling(1.5, new=60, ignore_eos=ignore_eos)
    rows = [replace(row, sampling=params) for row in some_rows(64)]
    results, used = {}, []
    running = Running(loaded, results)
    running.join(*rows)
    for which, steps in ((0, 7), (1, 1), (0, 37), (1, 60)):
        if used:
            fresh = Running(other if which else loaded, results)
            running.move([row for row in rows if results[row.key].stopped is None], fresh)
            running = fresh
        running.steps(steps)
        used += [which] * steps
    assert ignore_eos or sum(len(result.token_ids) < 45 for result in results.values()) >= 5  # rows were dropped
    for row in rows:
        result = results[row.key]
        expected = {which: full_forward(m, row, result.token_ids, params) for which, m in models.items()}
        assert_near(result.logprobs, [expected[used[place]][place] for place in range(len(result.token_ids))])


def test_a_change_to_the_same_numbers_changes_nothing(loaded):
    engine, weights = loaded
    copy = engine.build({name: tensor.clone() for name, tensor in untied_state_dict(weights).items()})
    params = sampling(new=30, ignore_eos=True)
    rows = [replace(row, sampling=params) for row in some_rows(6)]
    running, results = Running(loaded), {}
    running.join(*rows)
    results = running.results
    for turn in range(29):
        running.steps(1)
        fresh = Running((engine, copy if turn % 2 else weights), results)
        running.move(rows, fresh)
        running = fresh
    running.steps()
    for row, alone in zip(rows, drawn(loaded, rows, params), strict=True):
        assert results[row.key].token_ids == alone.token_ids
        assert_near(results[row.key].logprobs, alone.logprobs)
