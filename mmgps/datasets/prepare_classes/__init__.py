"""Convert published classification sets to the layout that their data sets read."""

from .run import prepare_set
from .sets import FGVC, ClassSet, SourceFile, Split, vtab_set

__all__ = ['FGVC', 'ClassSet', 'SourceFile', 'Split', 'prepare_set', 'vtab_set']
