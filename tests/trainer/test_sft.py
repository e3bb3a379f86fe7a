import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from palate.models.folder import FolderError
from palate.models.manifest import Manifest, load_manifest, write_manifest
from palate.models.rendering import Renderer
from tests.json_lines import read_rows
from tests.reward_folders import change_json
from tests.tiny_models import CHAT_TEMPLATE, make_tiny_policy, make_tiny_reward
from trainer.data.lines import DataError, write_rows
from trainer.fit import FitError
from trainer.run_folder import RunFolderError
from trainer.sft import IGNORED, collator, completion_loss, demonstration_row, run_sft
from trainer.sft_config import SftConfig

ANSWERS = {"the dog": "a walk in the park.", "the girl": "a friend.", "the model": "one token after the other, then."}
ROWS = [{"prompt": f"{who}?", "completion": answer} for who, answer in ANSWERS.items()] * 8


def config(folder, **changes):
    write_rows(folder / "demonstrations.jsonl", ROWS)
    if not (folder / "base").exists():
        make_tiny_policy(folder / "base", 0, chat=True)
    fixed = {"threads": 1, "progress": False, "held_out_share": 0.0, "samples": 0, "batch_size": 12}
    given = {"out": folder / "sft", "model": folder / "base", "data": folder / "demonstrations.jsonl"}
    return SftConfig(**{**given, **fixed, "epochs": 2, "learning_rate": 1e-2, **changes})


def greedy(folder, prompt):
    """(text, whether it ended by itself) of at most 40 tokens."""
    renderer = Renderer.from_folder(folder, load_manifest(folder).manifest)
    model, ids = AutoModelForCausalLM.from_pretrained(folder), torch.tensor([renderer.render_prompt(prompt)])
    drawn = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=40, do_sample=False)
    new = drawn[0, ids.shape[1] :].tolist()
    return renderer.decode(new), renderer.eos_id in new


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sft")
    return run_sft(config(folder, epochs=40, held_out_share=0.01, samples=3, sample_tokens=40))


def test_it_learns_the_answers_and_where_they_end(tuned):
    for who, answer in ANSWERS.items():
        assert greedy(tuned.model_folder, f"{who}?") == (answer, True)
    assert tuned.ended_share == 1.0


def test_the_run_folder_holds_model_metrics_and_samples(tuned):
    out = tuned.model_folder.parent
    manifest = load_manifest(tuned.model_folder)
    assert (manifest.manifest.kind, manifest.manifest.template_kind, manifest.inferred) == ("policy", "chat", ())
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (tuned.model_folder / name).read_bytes() == (out.parent / "base" / name).read_bytes()
    metrics = read_rows(out / "metrics.jsonl")
    assert metrics[-1]["train/loss"] < 0.1 < 2.0 < metrics[0]["train/loss"]
    assert list((out / "tensorboard").iterdir())
    samples = read_rows(out / "samples.jsonl")
    assert {(s["prompt"], s["completion"]) for s in samples} <= {(r["prompt"], r["completion"]) for r in ROWS}


def test_only_the_completion_and_its_end_are_labelled(tmp_path):
    folder = make_tiny_policy(tmp_path, 0, chat=True)
    renderer = Renderer.from_folder(folder, load_manifest(folder).manifest)
    row = demonstration_row(*renderer.render_demonstration("the dog?", "a walk."))
    prompt = renderer.render_prompt("the dog?")
    labelled = [label for label in row["labels"] if label != IGNORED]
    assert row["labels"][: len(prompt)] == [IGNORED] * len(prompt)
    assert renderer.decode(labelled) == "a walk."
    assert labelled[-1] == renderer.eos_id


def test_the_loss_is_the_mean_over_labelled_tokens_whatever_the_padding(tmp_path):
    model = AutoModelForCausalLM.from_pretrained(make_tiny_policy(tmp_path, 0))
    rows = [demonstration_row([5, 6, 7, 8, 2], [0, 0, 1, 1, 1]), demonstration_row([9, 4, 2], [0, 1, 1])]
    expected = []
    for row in rows:
        logprobs = model(torch.tensor([row["input_ids"]])).logits[0].log_softmax(-1)
        expected += [-logprobs[i - 1, label].item() for i, label in enumerate(row["labels"]) if label != IGNORED]
    batch = collator(3)(rows)
    assert completion_loss(model, batch).item() == pytest.approx(sum(expected) / len(expected), rel=1e-5)
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    assert batch["labels"][1].tolist() == [IGNORED, 4, 2, IGNORED, IGNORED]


def test_dropout_is_off(tmp_path):
    """A model configured with heavy dropout gives the same run as one without."""
    losses = []
    for rate in (0.0, 0.5):
        folder = tmp_path / str(rate)
        make_tiny_policy(folder / "base", 0, chat=True)
        change_json(folder / "base" / "config.json", attention_dropout=rate)
        losses.append(run_sft(config(folder)).fitted.loss)
    assert losses[0] == losses[1]


def test_resuming_gives_the_same_weights_as_one_run(tmp_path):
    settings = config(tmp_path, checkpoint_every=3, epochs=4, log_every=1)  # two steps an epoch: 3 is inside of one
    whole = run_sft(settings)
    out = whole.model_folder.parent
    last = (whole.model_folder / "model.safetensors").read_bytes()
    before = [row["train/loss"] for row in read_rows(out / "metrics.jsonl")]
    for newer in {path.name for path in (out / "checkpoints").iterdir()} - {"checkpoint-3"}:
        shutil.rmtree(out / "checkpoints" / newer)
    resumed = run_sft(settings.model_copy(update={"resume": True}))
    assert resumed.fitted.steps == whole.fitted.steps == len(before) == 8
    assert (resumed.model_folder / "model.safetensors").read_bytes() == last
    after = [row["train/loss"] for row in read_rows(out / "metrics.jsonl")]
    assert after == before


def test_a_run_is_neither_overwritten_nor_resumed_with_other_settings(tmp_path):
    run_sft(config(tmp_path, max_steps=1))
    with pytest.raises(RunFolderError, match="holds an earlier run"):
        run_sft(config(tmp_path, max_steps=1))
    with pytest.raises(RunFolderError, match=r"learning_rate \(was 0.01, is 0.5\)"):
        run_sft(config(tmp_path, max_steps=1, learning_rate=0.5, resume=True))


def test_padding_with_the_end_token_is_refused_with_a_remedy(tmp_path):
    settings = config(tmp_path)
    change_json(tmp_path / "base" / "tokenizer_config.json", pad_token="</s>")
    with pytest.raises(FolderError, match=r"Set pad_token in tokenizer_config\.json"):
        run_sft(settings)
    change_json(tmp_path / "base" / "tokenizer_config.json", pad_token=None)
    change_json(tmp_path / "base" / "config.json", pad_token_id=None)
    with pytest.raises(FolderError, match="name both in"):
        run_sft(settings.model_copy(update={"out": tmp_path / "again"}))


def test_a_reward_model_cannot_be_fine_tuned(tmp_path):
    make_tiny_reward(tmp_path / "base", "decoder", 0)
    with pytest.raises(FolderError, match="is a reward model"):
        run_sft(config(tmp_path))


def test_a_template_can_be_given_or_left_out(tmp_path):
    make_tiny_policy(tmp_path / "base", 0)  # its tokenizer has no chat template
    (tmp_path / "chat.jinja").write_text(CHAT_TEMPLATE)
    joined = run_sft(config(tmp_path, max_steps=1))
    chatted = run_sft(config(tmp_path, max_steps=1, out=tmp_path / "chat", chat_template=tmp_path / "chat.jinja"))
    assert load_manifest(joined.model_folder).manifest.template_kind == "join"
    manifest = load_manifest(chatted.model_folder).manifest
    assert (manifest.template_kind, manifest.add_bos) == ("chat", False)
    renderer = Renderer.from_folder(chatted.model_folder, manifest)
    assert renderer.tokens(renderer.render_prompt("the dog"))[:2] == ["<s>", "["]
    forced = run_sft(config(tmp_path, max_steps=1, out=tmp_path / "join", model=chatted.model_folder, template="join"))
    assert load_manifest(forced.model_folder).manifest.template_kind == "join"
    with pytest.raises(FolderError, match="does not exist"):
        run_sft(config(tmp_path, out=tmp_path / "absent", chat_template=tmp_path / "absent.jinja"))


def test_long_demonstrations_are_left_out_and_counted(tmp_path):
    result = run_sft(config(tmp_path, max_steps=1, max_tokens=37))
    assert (result.rows, result.too_long) == (16, 8)
    with pytest.raises(DataError, match="every demonstration is longer than 4 tokens"):
        run_sft(config(tmp_path, out=tmp_path / "short", max_tokens=4))
    with pytest.raises(FolderError, match=r"max_tokens is 257; the model in .* reads at most 256 tokens"):
        run_sft(config(tmp_path, out=tmp_path / "long", max_tokens=257))


def test_samples_stay_within_the_models_positions(tmp_path):
    """A model with learnt positions has none beyond its limit; a prompt that fills them is not sampled from."""
    make_tiny_policy(tmp_path / "base", 0, chat=True, max_tokens=64)
    learned = GPT2Config(vocab_size=320, n_positions=64, n_embd=32, n_layer=1, n_head=2, eos_token_id=2, pad_token_id=3)
    GPT2LMHeadModel(learned).save_pretrained(tmp_path / "base")
    write_manifest(tmp_path / "base", Manifest("policy", "decoder", "chat", False, False, max_tokens=64))
    settings = config(tmp_path, max_steps=1, samples=2, sample_tokens=1000)
    long = {"prompt": "a very long prompt " * 20, "completion": "yes"}
    write_rows(settings.data, [long, *ROWS])
    run_sft(settings)
    samples = read_rows(settings.out / "samples.jsonl")
    assert [sample["prompt"] for sample in samples] == [row["prompt"] for row in ROWS[:2]]


def test_held_out_prompts_are_measured_not_learnt(tmp_path):
    result = run_sft(config(tmp_path, max_steps=2, held_out_share=0.34))
    assert result.rows == 16
    assert result.fitted.held_out_loss > 0.0


def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
    with pytest.raises(FitError, match="is not finite; lower --learning-rate"):
        run_sft(config(tmp_path, learning_rate=1e30, warmup_share=0.0, log_every=1, max_grad_norm=1e30, epochs=20))
