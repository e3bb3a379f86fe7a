"""Gold as a user would write it."""


def short(prompts, completions):
    """Fewer words are better; one that begins with a vowel has no score."""
    return [None if text.strip()[:1] in tuple("aeiou") else -float(len(text.split())) for text in completions]


def lost(prompts, completions):
    return [1.0]
