"""`palate audit`: what a reward model likes that it should not, found with minimal pairs against any endpoint."""
