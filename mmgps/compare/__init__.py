"""Compare fine-tuning methods on one config: one process per run, rates chosen on training images, one table."""

from mmgps.utils.requirements import require

require('mmengine')

from .candidates import Candidate, grids_of, parse_assignments, parse_candidate  # noqa: E402
from .chart import draw_comparison  # noqa: E402
from .markdown import text_of  # noqa: E402
from .processes import RunFailedError  # noqa: E402
from .run import run_comparison  # noqa: E402
from .runs import Settings, stated_options  # noqa: E402
from .table import METRICS, Comparison, Metric, read_costs  # noqa: E402  # noqa: E402

__all__ = [
    'METRICS',
    'Candidate',
    'Comparison',
    'Metric',
    'RunFailedError',
    'Settings',
    'draw_comparison',
    'grids_of',
    'parse_assignments',
    'parse_candidate',
    'read_costs',
    'run_comparison',
    'stated_options',
    'text_of',
]
