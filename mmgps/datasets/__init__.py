"""Polyp sets in the form that mmseg reads, sets of images with a class, and sets that are drawn."""

from mmgps.utils.requirements import require

require('mmseg')

from mmgps.datasets.classes import VTAB, NABirds, StanfordDogs  # noqa: E402
from mmgps.datasets.images import PolypImages  # noqa: E402
from mmgps.datasets.polyp import PolypDataset  # noqa: E402
from mmgps.datasets.procedural import ProceduralDataset, RenderFrame  # noqa: E402
from mmgps.datasets.synthetic_polyp import SyntheticPolypDataset  # noqa: E402
from mmgps.datasets.synthetic_shapes import SyntheticShapesDataset  # noqa: E402

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
