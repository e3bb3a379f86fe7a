"""Flags win over the environment, the environment over the file; mistakes are named with the right spelling."""

import pytest
from pydantic import Field, SecretStr

from palate.settings import Group, Settings


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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"model: [", "is not YAML: while parsing a flow node"),
        (b"model:\n\t- x", "cannot start any token"),
        (b"\xff\xfe", "is not YAML: 'utf-8' codec"),
        (b"- model\n- x", "holds no names with values"),
        (b"just words", "holds no names with values"),
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


def test_an_empty_file_says_nothing(tmp_path):
    (tmp_path / "c.yaml").write_text("# nothing yet\n")
    assert load("--config", str(tmp_path / "c.yaml"), "--model", "m").model == "m"


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
