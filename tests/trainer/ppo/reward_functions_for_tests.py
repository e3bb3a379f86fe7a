"""Reward functions as a user would write them."""

import os
import re
import threading
from pathlib import Path


def words(prompts, completions):
    """How many words; none for every text that has an "e" as its second letter."""
    return [None if text[1:2] == "e" else float(len(text.split())) for text in completions]


def wild(prompts, completions):
    """One of everything that is no score."""
    return [1, float("nan"), float("inf"), None, "a text", True][: len(completions)]


def broken(prompts, completions):
    raise KeyError(completions[0])


def short(prompts, completions):
    return [1.0]


def stuck(prompts, completions):
    """A regular expression that takes for ever, as they do."""
    return [float(bool(re.match("(a+)+b", "a" * 200))) for _ in completions]


def late_once(prompts, completions):
    """Takes for ever where the file that the text names is not there yet."""
    (file,) = map(Path, completions)
    if not file.exists():
        file.touch()
        threading.Event().wait()
    return [1.0]


def ending(prompts, completions):
    os._exit(7)
