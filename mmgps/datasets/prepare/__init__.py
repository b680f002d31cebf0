"""Convert published polyp sets to the layout that ``PolypDataset`` reads."""

from .conversion import Summary, convert, prepare
from .errors import PrepareError
from .sources import SOURCES, Layout, PolypSource, fetch, get_source

__all__ = ['SOURCES', 'Layout', 'PolypSource', 'PrepareError', 'Summary', 'convert', 'fetch', 'get_source', 'prepare']
