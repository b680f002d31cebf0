"""Prepare published data sets: polyp sets for ``PolypDataset``, and classification sets for their classes."""

from .conversion import Summary, convert, prepare
from .errors import PrepareError
from .sources import SOURCES, Layout, PolypSource, fetch, get_source

__all__ = ['SOURCES', 'Layout', 'PolypSource', 'PrepareError', 'Summary', 'convert', 'fetch', 'get_source', 'prepare']
