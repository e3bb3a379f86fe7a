"""What optimising against a reward model does to what was meant: best of n, fits over KL, and what length explains."""
