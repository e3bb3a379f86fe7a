"""A handful of built-in texts on which engines and exports prove that they agree."""

PROBES: tuple[tuple[str, str], ...] = (
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
"""(prompt, completion) of very unequal length."""
