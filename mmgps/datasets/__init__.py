"""Polyp data sets on mmseg's base classes."""

from mmgps.requirements import require

require('mmseg')

from mmgps.datasets.procedural import ProceduralDataset, RenderFrame  # noqa: E402
from mmgps.datasets.synthetic_polyp import SyntheticPolypDataset  # noqa: E402
from mmgps.datasets.synthetic_shapes import SyntheticShapesDataset  # noqa: E402

__all__ = ['ProceduralDataset', 'RenderFrame', 'SyntheticPolypDataset', 'SyntheticShapesDataset']
