"""The mmengine side: hooks, optimizer wrappers, and changes to configs."""

from mmgps.requirements import require

require('mmengine')

from .command_line import (  # noqa: E402
    add_config_arguments,
    add_launcher_arguments,
    add_tune_arguments,
    read_config,
)
from .components import METHOD_NAMES, build_method  # noqa: E402
from .config import (  # noqa: E402
    enable_amp,
    enable_auto_scale_lr,
    rooted_datasets,
    set_work_dir,
    show_predictions,
    tune_config,
)
from .embeddings import ImageEmbedding, PixelEmbedding  # noqa: E402
from .hooks import BeforeAfterHook, ExactResumeHook, GPSHook, TuneHook, find_backbone  # noqa: E402
from .inputs import InputMissingError, MissingInputsError, provide_inputs  # noqa: E402
from .optim import GPSAmpOptimWrapper, GPSOptimWrapper  # noqa: E402
from .selection_loss import TaskLoss  # noqa: E402
from .supcon import SupConLoss  # noqa: E402
from .tuned_backbone import tuned_backbone  # noqa: E402
from .view_orders import ClassBalancedOrder, ShuffledOrder  # noqa: E402

__all__ = [
    'METHOD_NAMES',
    'BeforeAfterHook',
    'ClassBalancedOrder',
    'ExactResumeHook',
    'GPSAmpOptimWrapper',
    'GPSHook',
    'GPSOptimWrapper',
    'ImageEmbedding',
    'InputMissingError',
    'MissingInputsError',
    'PixelEmbedding',
    'ShuffledOrder',
    'SupConLoss',
    'TaskLoss',
    'TuneHook',
    'add_config_arguments',
    'add_launcher_arguments',
    'add_tune_arguments',
    'build_method',
    'enable_amp',
    'enable_auto_scale_lr',
    'find_backbone',
    'provide_inputs',
    'read_config',
    'rooted_datasets',
    'set_work_dir',
    'show_predictions',
    'tune_config',
    'tuned_backbone',
]
