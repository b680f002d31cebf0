"""The mmengine side: hooks, optimizer wrappers, and changes to configs."""

from mmgps.requirements import require

require('mmengine')

from .components import METHOD_NAMES  # noqa: E402
from .config import (  # noqa: E402
    enable_amp,
    enable_auto_scale_lr,
    set_data_root,
    set_work_dir,
    show_predictions,
    tune_config,
)
from .hooks import BeforeAfterHook, ExactResumeHook, GPSHook, TuneHook, find_backbone  # noqa: E402
from .optim import GPSAmpOptimWrapper, GPSOptimWrapper  # noqa: E402

__all__ = [
    'METHOD_NAMES',
    'BeforeAfterHook',
    'ExactResumeHook',
    'GPSAmpOptimWrapper',
    'GPSHook',
    'GPSOptimWrapper',
    'TuneHook',
    'enable_amp',
    'enable_auto_scale_lr',
    'find_backbone',
    'set_data_root',
    'set_work_dir',
    'show_predictions',
    'tune_config',
]
