"""Polyp sets for mmseg, classification sets, and synthetic sets."""

from mmgps.utils.requirements import require

require('mmseg')

from .classes import VTAB, NABirds, StanfordDogs  # noqa: E402
from .polyp import PolypDataset, PolypImages  # noqa: E402
from .synthetic import ProceduralDataset, RenderFrame, SyntheticPolypDataset, SyntheticShapesDataset  # noqa: E402

__all__ = [
    'VTAB',
    'NABirds',
    'PolypDataset',
    'PolypImages',
    'ProceduralDataset',
    'RenderFrame',
    'StanfordDogs',
    'SyntheticPolypDataset',
    'SyntheticShapesDataset',
]
