"""The mmengine side: hooks, optimizer wrappers, and changes to configs."""

from mmgps.utils.requirements import require

require('mmengine')

from .base_model import build_base, build_plain  # noqa: E402
from .checkpoints import CheckpointFileError, refuse_delta, weights_only  # noqa: E402
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
    tune_config,
)
from .delta_command import add_delta_commands, run_delta_command  # noqa: E402
from .embeddings import ImageEmbedding, PixelEmbedding  # noqa: E402
from .fsdp import GPSFSDPStrategy, ShardingError  # noqa: E402
from .hooks import BeforeAfterHook, DeltaHook, ExactResumeHook, GPSHook, TuneHook  # noqa: E402
from .inference import ModelBank, init_bank, init_model  # noqa: E402
from .inputs import InputMissingError, MissingInputsError, provide_inputs  # noqa: E402
from .loaders import NoBatchError, check_batches  # noqa: E402
from .micro_batches import MicroBatches  # noqa: E402
from .optim import GPSAmpOptimWrapper, GPSOptimWrapper, WarmUpCosineLR  # noqa: E402
from .runners import build_runner  # noqa: E402
from .selection_loss import TaskLoss  # noqa: E402
from .supcon import SupConLoss  # noqa: E402
from .target import find_backbone  # noqa: E402
from .testing import augment_test, follow_method, show_predictions, spare_config_of_training  # noqa: E402
from .tuned_backbone import tuned_backbone  # noqa: E402
from .view_orders import ClassBalancedOrder, ShuffledOrder  # noqa: E402
from .work_dir import WorkDirError, enter_work_dir, hold_work_dir, remove_run, set_work_dir  # noqa: E402

__all__ = [
    'METHOD_NAMES',
    'BeforeAfterHook',
    'CheckpointFileError',
    'ClassBalancedOrder',
    'DeltaHook',
    'ExactResumeHook',
    'GPSAmpOptimWrapper',
    'GPSFSDPStrategy',
    'GPSHook',
    'GPSOptimWrapper',
    'ImageEmbedding',
    'InputMissingError',
    'MicroBatches',
    'MissingInputsError',
    'ModelBank',
    'NoBatchError',
    'PixelEmbedding',
    'ShardingError',
    'ShuffledOrder',
    'SupConLoss',
    'TaskLoss',
    'TuneHook',
    'WarmUpCosineLR',
    'WorkDirError',
    'add_config_arguments',
    'add_delta_commands',
    'add_launcher_arguments',
    'add_tune_arguments',
    'augment_test',
    'build_base',
    'build_method',
    'build_plain',
    'build_runner',
    'check_batches',
    'enable_amp',
    'enable_auto_scale_lr',
    'enter_work_dir',
    'find_backbone',
    'follow_method',
    'hold_work_dir',
    'init_bank',
    'init_model',
    'provide_inputs',
    'read_config',
    'refuse_delta',
    'remove_run',
    'rooted_datasets',
    'run_delta_command',
    'set_work_dir',
    'show_predictions',
    'spare_config_of_training',
    'tune_config',
    'tuned_backbone',
    'weights_only',
]
