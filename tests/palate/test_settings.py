"""Flags win over the environment, the environment over the file; mistakes are named with the right spelling."""

import pytest
from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from palate.settings import Group, Settings, read_config
from services.policy.config import PolicyConfig
from services.reward.config import RewardConfig
from trainer.sft_config import SftConfig


class Inner(Group):
    """Nested."""

    kl_coef: float = Field(0.1, ge=0, description="KL coefficient.")


class Example(Settings):
    """An example."""

    model: str = Field(description="The folder.")
    lr: float = Field(1e-3, description="Learning rate.")
    frozen: bool = Field(False, description="Freeze.")
    token: SecretStr = Field(SecretStr(""), description="A secret.")
    ppo: Inner = Field(default_factory=Inner, description="PPO.")


def load(*flags):
    return Example.from_command_line(flags, "example")


def test_sources_in_order(tmp_path, monkeypatch):
    file = tmp_path / "c.yaml"
    file.write_text("model: from-file\nlr: 1.0\nppo:\n  kl_coef: 3.0\n")
    monkeypatch.setenv("PALATE_LR", "2.0")
    monkeypatch.setenv("PALATE_MODEL", "from-env")
    config = load("--config", str(file), "--model", "from-flag", "--frozen")
    assert (config.model, config.lr, config.ppo.kl_coef, config.frozen) == ("from-flag", 2.0, 3.0, True)
    assert load(f"--config={file}").model == "from-env"


def test_nested_flags():
    assert load("--model", "m", "--ppo.kl-coef", "0.5").ppo.kl_coef == 0.5


@pytest.mark.parametrize(
    ("text", "hint"),
    [("modle: x", "did you mean model"), ("model: x\nppo:\n  kl_cof: 2", r"did you mean ppo\.kl_coef")],
)
def test_a_misspelt_key_is_named(tmp_path, capsys, text, hint):
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(SystemExit, match="2"):
        load("--config", str(file))
    assert hint.replace("\\", "") in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--modle", "x"], "did you mean --model"),
        (["--no-frozn"], "did you mean --no-frozen"),
        ([], "--model is missing: The folder."),
        (["--model", "m", "--lr", "fast"], "lr: Input should be a valid number"),
        (["--model", "m", "--ppo.kl-coef=-1"], "ppo.kl_coef: Input should be greater than or equal to 0"),
        (["--config", "nowhere.yaml"], "nowhere.yaml does not exist"),
    ],
)
def test_wrong_input_is_explained(flags, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        load(*flags)
    assert message in capsys.readouterr().err


LISTS_OF_ALIASES = b"a0: &a0 [x]\n" + b"".join(
    b"a%d: &a%d [%s]\n" % (level, level, b"*a%d, " % (level - 1) * 9) for level in range(1, 10)
)
MERGED_ALIASES = b"a0: &a0 {k: 1}\n" + b"".join(
    b"a%d: &a%d {<<: [%s]}\n" % (level, level, b"*a%d, " % (level - 1) * 2) for level in range(1, 30)
)
"""Under 2,000 bytes, and a thousand million values."""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"model: [", "is not YAML: while parsing a flow node"),
        (b"model:\n\t- x", "cannot start any token"),
        (b"model: \x01", "is not YAML: unacceptable character"),
        (b"\xff\xfe", "is not YAML: 'utf-8' codec"),
        (b"- model\n- x", "holds no names with values"),
        (b"just words", "holds no names with values"),
        (b"model: x\nlr: 1\nmodel: y", "contradicts itself: model is given twice, again in line 3"),
        (b"model: x\nppo: {kl_coef: 1, kl_coef: 2}", "kl_coef is given twice, again in line 2"),
        (b"1: x", "holds no names with values"),
        (b"model: 2026-99-99", "is not YAML: a value cannot be read (ValueError: month must be in 1..12"),
        (b"model: " + b"9" * 5000, "is not YAML: a value cannot be read (ValueError: Exceeds the limit"),
        (b"model: " + b"[" * 5000, "holds too much: it has more than 64 brackets in brackets"),
        (b"model: " + b"{" * 5000, "holds too much: it has more than 64 brackets in brackets"),
        (b"model: " + b"[" * 65 + b"]" * 65, "holds too much: it has more than 64 brackets in brackets"),
        (b"- " * 5000, "is not YAML: a value cannot be read (RecursionError"),
        (b"model: x" + b" " * (1 << 20), "holds too much: it is longer than 1048576 bytes"),
        (b"model: [" + b"x, " * 100_000 + b"]", "holds too much: it stands for more than 100000 values"),
        (LISTS_OF_ALIASES, "holds too much: it stands for more than 100000 values"),
        (MERGED_ALIASES, "holds too much: it stands for more than 100000 values"),
        (b"model: &a [*a]", "holds too much: it stands for more than 100000 values"),
        (b"model: &a {<<: *a}", "holds too much: it stands for more than 100000 values"),
        (b"model: !!int ''", "is not YAML: a value cannot be read (IndexError"),
        (None, "cannot be read: Is a directory"),
    ],
)
def test_a_file_that_is_no_configuration_is_explained(tmp_path, content, message, capsys):
    file = tmp_path / "c.yaml"
    file.mkdir() if content is None else file.write_bytes(content)
    with pytest.raises(SystemExit, match="2"):
        load("--config", str(file))
    told = capsys.readouterr().err
    assert f"{file} " in told
    assert message in told
    assert "<unicode string>" not in told


def test_brackets_and_aliases_of_a_usual_depth_and_number_are_read(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("a: &a {b: " + "[" * 63 + "x" + "]" * 63 + "}\nc: {<<: *a, d: 1}\ne: [*a, *a]\n")
    content = read_config(file)
    assert content["e"] == [content["a"], content["a"]]
    assert content["c"] == {"b": content["a"]["b"], "d": 1}


@pytest.mark.parametrize(("content", "name"), [("lr: yes", "lr"), ("ppo:\n  kl_coef: on", "ppo.kl_coef")])
def test_a_yes_is_no_number(tmp_path, content, name, capsys):
    """It would be 1."""
    file = tmp_path / "c.yaml"
    file.write_text(f"model: m\n{content}\n")
    with pytest.raises(SystemExit, match="2"):
        load("--config", str(file))
    told = capsys.readouterr().err
    assert name in told
    assert "a number is wanted here" in told


def test_an_empty_file_says_nothing(tmp_path):
    (tmp_path / "c.yaml").write_text("# nothing yet\n")
    assert load("--config", str(tmp_path / "c.yaml"), "--model", "m").model == "m"


class Named(Settings):
    """An example with a prefix of its own."""

    model_config = SettingsConfigDict(env_prefix="PALATE_EXAMPLE_")

    lr: float = Field(1e-3, description="Learning rate.")
    ppo: Inner = Field(default_factory=Inner, description="PPO.")
    more: dict[str, str] = Field(default_factory=dict, description="More.")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("PALATE_EXAMPLE_LRR", "PALATE_EXAMPLE_LRR is unknown; did you mean PALATE_EXAMPLE_LR?"),
        ("palate_example_lrr", "palate_example_lrr is unknown"),
        ("PALATE_EXAMPLE_PPO__KL_COF", "did you mean PALATE_EXAMPLE_PPO__KL_COEF?"),
        ("PALATE_EXAMPLE_PPO_KL_COEF", "did you mean PALATE_EXAMPLE_PPO__KL_COEF?"),
        ("PALATE_EXAMPLE_LR__X", "did you mean PALATE_EXAMPLE_LR?"),
    ],
)
def test_a_misspelt_variable_is_named(name, hint, monkeypatch, capsys):
    monkeypatch.setenv(name, "1")
    with pytest.raises(SystemExit, match="2"):
        Named.from_command_line([], "example")
    assert f"the environment variable {name} " in (told := capsys.readouterr().err)
    assert hint in told


def test_variables_of_others_are_let_pass(monkeypatch):
    for name in ("PALATE_DATA", "PALATE_TARGET", "PALATE_REWARD_MODLE", "PALATE_EXAMPLE"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("PALATE_EXAMPLE_V2_PORT", "tcp://10.0.0.1:50051")  # Kubernetes, of a Service
    monkeypatch.setenv("PALATE_EXAMPLE_V2_SERVICE_PORT_GRPC", "50051")
    monkeypatch.setenv("PALATE_EXAMPLE_MORE__A", "b")
    monkeypatch.setenv("PALATE_EXAMPLE_PPO__KL_COEF", "2")
    config = Named.from_command_line([], "example")
    assert (config.more, config.ppo.kl_coef) == ({"a": "b"}, 2.0)


@pytest.mark.parametrize(
    ("kind", "others", "wrong"),
    [
        (RewardConfig, ("PALATE_REWARD_TARGET", "PALATE_REWARD_PROMPT_KEY", "PALATE_POLICY_X"), "PALATE_REWARD_ENGIN"),
        (PolicyConfig, ("PALATE_REWARD_X",), "PALATE_POLICY_FROZN"),
        (SftConfig, ("PALATE_TRAIN_PPO__KL_COEF", "PALATE_TRAIN_LABEL_SMOOTHING"), "PALATE_TRAIN_EPOCH"),
    ],
)
def test_every_command_knows_what_else_begins_like_its_own(kind, others, wrong, monkeypatch, capsys):
    for name in others:
        monkeypatch.setenv(name, "1")
    flags = ["--model", "m", *(["--data", "d", "--out", "o"] if kind is SftConfig else [])]
    assert str(kind.from_command_line(flags, "palate").model) == "m"
    monkeypatch.setenv(wrong, "1")
    with pytest.raises(SystemExit, match="2"):
        kind.from_command_line(flags, "palate")
    assert f"{wrong} is unknown; did you mean {wrong[:-2]}" in capsys.readouterr().err


def test_help_comes_in_spite_of_a_misspelt_variable(monkeypatch, capsys):
    monkeypatch.setenv("PALATE_EXAMPLE_LRR", "1")
    with pytest.raises(SystemExit, match="0"):
        Named.from_command_line(["--help"], "example")
    assert "Learning rate." in capsys.readouterr().out


def test_help_says_what_each_value_is(capsys):
    with pytest.raises(SystemExit, match="0"):
        load("--help")
    text = capsys.readouterr().out
    assert "--ppo.kl-coef" in text
    assert "Learning rate." in text


def test_secrets_are_hidden():
    text = load("--model", "m", "--token", "hunter2").describe()
    assert "hunter2" not in text
    assert "********" in text
