"""What another reward model would have said of a run: stored rollouts, scored again and compared."""
