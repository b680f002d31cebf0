"""Sets of images with one class each, where mmpretrain has none for them."""

from mmgps.datasets.classes.labelled import ClassDataError, LabelledImages
from mmgps.datasets.classes.nabirds import NABirds
from mmgps.datasets.classes.stanford_dogs import StanfordDogs
from mmgps.datasets.classes.vtab import VTAB

__all__ = ['VTAB', 'ClassDataError', 'LabelledImages', 'NABirds', 'StanfordDogs']
