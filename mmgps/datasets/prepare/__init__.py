"""From the published polyp sets to the layout that ``PolypDataset`` reads."""

from mmgps.datasets.prepare.convert import convert
from mmgps.datasets.prepare.errors import PrepareError
from mmgps.datasets.prepare.fetch import fetch
from mmgps.datasets.prepare.run import prepare
from mmgps.datasets.prepare.sources import SOURCES, Layout, PolypSource, get_source
from mmgps.datasets.prepare.summary import Summary

__all__ = ['SOURCES', 'Layout', 'PolypSource', 'PrepareError', 'Summary', 'convert', 'fetch', 'get_source', 'prepare']
