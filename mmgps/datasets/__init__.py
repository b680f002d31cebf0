"""Polyp sets in the form that mmseg reads."""

from mmgps.requirements import require

require('mmseg')

from mmgps.datasets.polyp import PolypDataset  # noqa: E402

__all__ = ['PolypDataset']
