"""From published archives of images with a class each to the layout that their data sets read."""

from mmgps.datasets.prepare_classes.fgvc import FGVC
from mmgps.datasets.prepare_classes.run import prepare_set
from mmgps.datasets.prepare_classes.sets import ClassSet, Part, Split
from mmgps.datasets.prepare_classes.vtab import vtab_set

__all__ = ['FGVC', 'ClassSet', 'Part', 'Split', 'prepare_set', 'vtab_set']
