"""Deltas of runs and checkpoints: a hook writes them, networks apply them, a model bank switches between them."""
