"""A short run of every fuzzed decoder: the corpora, past findings among them, and inputs that Hypothesis makes."""

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from services.reward.config import RewardConfig
from tests.fuzz import corpus
from tests.fuzz.decoders import NAMES, harness_of
from tests.fuzz.harness import Broken, Harness

SHORT = settings(
    max_examples=15,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("name", NAMES)
def test_a_decoder_keeps_its_promise(name):
    harness = harness_of(name)
    harness.prepare()
    kept = corpus.read(name)
    assert kept, f"tests/fuzz/corpora has no inputs for {name}; `python -m tests.fuzz {name} --keep` makes them"
    for data in kept:
        harness.check(data)

    @SHORT
    @given(harness.inputs)
    def check(data):
        harness.check(data)

    check()


def test_every_corpus_belongs_to_a_decoder():
    assert {file.stem for file in corpus.CORPORA.glob("*.txt")} == set(NAMES)


@pytest.mark.parametrize(
    ("decode", "message"),
    [
        (lambda data: sum(range(10**7)), "of the processor"),
        (lambda data: bytearray(1 << 30).count(1), "MiB"),
    ],
)
def test_a_decoder_that_takes_too_much_is_found(decode, message, monkeypatch):
    monkeypatch.setattr("tests.fuzz.harness.CPU_SECONDS", 0.01 if "processor" in message else 60)
    with pytest.raises(Broken, match=message):
        Harness("greedy", decode, (), None).check(b"x")


def test_an_exception_of_another_type_or_a_long_one_is_found():
    def decode(data):
        raise ValueError("a" * 5000)

    with pytest.raises(ValueError, match="aaa"):
        Harness("loud", decode, (KeyError,), None).check(b"x")
    with pytest.raises(Broken, match="an error of 5000 characters"):
        Harness("loud", decode, (ValueError,), None).check(b"x")


def test_any_configuration_file_is_used_or_refused_in_words(tmp_path, capsys):
    """The whole way that a server takes, with its exit code."""
    file, codes = tmp_path / "config.yaml", set()

    @SHORT
    @given(harness_of("config.reward").inputs)
    def start(data):
        file.write_bytes(data)
        try:
            RewardConfig.from_command_line(["--config", str(file)], "test")
        except SystemExit as refused:
            codes.add(refused.code)

    start()
    assert codes == {2}
    assert "Traceback" not in capsys.readouterr().err
