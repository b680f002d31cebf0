"""Report of a selection: a page, pictures and numbers."""

from mmgps.utils.requirements import require

require('mmengine')

from .facts import LayerFacts, Overlap, SelectionFacts, in_all, overlaps, selection_facts  # noqa: E402
from .selection_report import SelectionReport, SelectionReportHook, report_of_file  # noqa: E402

__all__ = [
    'LayerFacts',
    'Overlap',
    'SelectionFacts',
    'SelectionReport',
    'SelectionReportHook',
    'in_all',
    'overlaps',
    'report_of_file',
    'selection_facts',
]
