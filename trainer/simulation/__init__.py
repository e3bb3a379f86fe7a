"""A small world in which the true reward is known: prompts, completions, annotators and the gold reward."""
