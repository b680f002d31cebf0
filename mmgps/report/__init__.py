"""What a selection chose, as a page, pictures and figures."""

from mmgps.utils.requirements import require

require('mmengine')

from .facts import LayerFacts, SelectionFacts, selection_facts  # noqa: E402
from .from_file import report_of_file  # noqa: E402
from .overlap import Overlap, in_all, overlaps  # noqa: E402
from .report_hook import SelectionReportHook  # noqa: E402
from .write import SelectionReport  # noqa: E402

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
