"""What each fine-tuning method costs on a config: time, memory, and bytes to exchange, in one run."""

from mmgps.utils.requirements import require

require('mmengine')

from .bars import Bar, bars_for  # noqa: E402
from .chart import draw_chart  # noqa: E402
from .deltas import DeltaCost, format_deltas, measure_deltas  # noqa: E402
from .figures import Figures, SelectionCost  # noqa: E402
from .report import Report  # noqa: E402
from .run import Options, run_benchmark  # noqa: E402
from .setup import Setup  # noqa: E402

__all__ = [
    'Bar',
    'DeltaCost',
    'Figures',
    'Options',
    'Report',
    'SelectionCost',
    'Setup',
    'bars_for',
    'draw_chart',
    'format_deltas',
    'measure_deltas',
    'run_benchmark',
]
