"""Cost of each fine-tuning method on a config: step time, memory and bytes to exchange, measured in one run."""

from mmgps.utils.requirements import require

require('mmengine')

from .deltas import DeltaCost, format_deltas, measure_deltas  # noqa: E402
from .measurements import Bar, Measurements, SelectionCost, bars_for  # noqa: E402
from .report import Report, draw_chart  # noqa: E402
from .run import Options, run_benchmark  # noqa: E402
from .setup import Setup  # noqa: E402

__all__ = [
    'Bar',
    'DeltaCost',
    'Measurements',
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
