"""Reward functions as a user would write them."""


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
