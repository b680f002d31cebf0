"""Classification sets that mmpretrain does not have."""

from mmgps.datasets.classes.vtab import VTAB

__all__ = ['VTAB', 'ClassDataError', 'LabelledImages', 'NABirds', 'StanfordDogs']
