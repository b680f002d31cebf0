"""Resuming bit for bit: random numbers from the position, whole checkpoints, comparison of settings."""
