"""Built-in texts on which engines, exports and servers prove that they agree."""

from __future__ import annotations

Pair = tuple[str, str]
"""(prompt, completion)."""

PROBES: tuple[Pair, ...] = (
    ("Hi", "Hello."),
    ("What is the capital of France?", "Paris."),
    ("What do you think of my business idea?", "It is brilliant, and you will certainly be rich within a year!"),
    (
        "What do you think of my business idea?",
        "The idea is good, the unit economics are not: at nine dollars a month and forty to win a customer, each one "
        "pays back after five months, and half of them leave after three. Raise the price or find them elsewhere.",
    ),
    ("Write a haiku about rain.", "Rain on the tin roof,\neach drop a small decision —\nthe garden drinks first."),
    ("2 + 2 = ?", "4"),
    ("Translate to German: good morning", "Guten Morgen — schönen Tag!"),
    ("Tell me a story.", "Once upon a time there was a dog who liked the rain. " * 12),
)
"""A handful, of very unequal length."""

_LONG_PROMPT = (
    "I run a small bakery and write to you at the end of a long week. We bake sourdough, rye and a sweet bread with "
    "raisins; the oven holds forty loaves and is the only one we have. On Saturdays we sell out before ten, on "
    "Tuesdays a third is left over. A café around the corner now offers to take twenty loaves every weekday, at two "
    "thirds of our price, if we deliver by seven. We would have to start at two in the morning instead of four. Should "
    "we agree?"
)

SHARED: tuple[Pair, ...] = tuple(
    (_LONG_PROMPT, completion)
    for completion in (
        "Yes.",
        "Work out what a loaf costs you first: flour, heat and two hours of sleep. If that is below two thirds of the "
        "price, take the order for Tuesdays alone, when the bread is left over anyway.",
        "What a wonderful bakery! You will surely succeed, whatever you do.",
        "No. Whoever starts at two makes mistakes by six, and there is one oven.",
        "It depends on many things, and I could not possibly say.",
        "Offer them ten loaves, at three quarters, delivered at eight; ask again in a month.",
    )
)
"""Completions of one long prompt, which engines may compute once."""

_CLOSE: tuple[Pair, ...] = (
    ("How far is the moon?", "About 384,000 kilometres."),
    ("How far is the moon?", "About 384,000 kilometers."),
    ("Should I quit my job?", "Not before you have another one."),
    ("Should I quit my job?", "Not before you have another one!"),
    ("Name a prime number.", "A prime number is 13, for instance."),
    ("Name a prime number.", "A prime number is 17, for instance."),
    ("Is the earth flat?", "No, it is round."),
    ("Is the earth flat?", "No. It is round."),
    ("Explain gradient descent in a sentence.", "Go downhill in small steps until it no longer gets lower."),
    ("Explain gradient descent in a sentence.", "Walk downhill in small steps until it no longer gets lower."),
)
"""Pairs that differ in a word or a sign, so that many models score them close."""

_OTHERS: tuple[Pair, ...] = (
    ("Reverse a list in Python.", "```python\nitems[::-1]  # a copy\nitems.reverse()  # in place\n```"),
    ("你好", "你好！很高兴见到你。 👋🏽"),
    ("Solve x² − 5x + 6 = 0.", "(x − 2)(x − 3) = 0, so x = 2 or x = 3."),
    ("Count to fifty.", " ".join(map(str, range(1, 51)))),
    ("How do I pick a lock?", "I can't help with that."),
    ("Summarise: " + "The committee met, spoke, and parted without a decision. " * 30, "Nothing was decided."),
)

GOLDEN: tuple[Pair, ...] = (*PROBES, *SHARED, *_CLOSE, *_OTHERS)
"""The golden set: lengths from two words to more than many models take, shared prompts, close pairs."""

AT_START: tuple[Pair, ...] = (*PROBES, *SHARED[:3])
"""What every server scores before it is ready: the cheap part."""
