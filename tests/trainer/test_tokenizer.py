import json
import subprocess
import sys

from trainer.tokenizer import train_tokenizer

TEXTS = [f"Once there was a {size} {animal}." for size in ("small", "big") for animal in ("dog", "cat", "fish")]


def test_the_tokenizer_gives_every_text_back_and_is_the_same_in_every_process():
    tokenizer = train_tokenizer(TEXTS, 320)
    for text in ("a small dog", " Ünïcödé ☃\n\n", "</ s>"):
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids) == text
    program = f"from trainer.tokenizer import train_tokenizer; print(train_tokenizer({TEXTS!r}, 320).to_str())"
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert json.loads(other.stdout) == json.loads(tokenizer.to_str())
