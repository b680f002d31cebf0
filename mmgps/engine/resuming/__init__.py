"""Resuming bit for bit: random numbers from the position, complete checkpoints, comparison of settings."""
