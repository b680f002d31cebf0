"""Deltas of runs and checkpoints: written by a hook, put onto their base, served by a model bank."""
