"""The selection pass in a runner: its batches, its loss, and the check of an earlier selection."""
