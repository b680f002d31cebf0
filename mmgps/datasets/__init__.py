"""Polyp sets in the form that mmseg reads, sets of images with a class, and sets that are drawn."""

from mmgps.requirements import require

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
