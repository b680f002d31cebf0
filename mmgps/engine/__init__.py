"""The mmengine side of mmgps: hooks, optimizer wrappers, strategies, and changes to configs."""

from mmgps.utils.requirements import require

require('mmengine')

# ruff: noqa: E402

from .configs.command_line import (
    add_config_arguments,
    add_launcher_arguments,
    add_tune_arguments,
    build_runner,
    read_config,
)
from .configs.components import METHOD_NAMES, build_method
from .configs.config import (
    augment_test,
    enable_amp,
    enable_auto_scale_lr,
    follow_method,
    keep_training_config,
    rooted_datasets,
    show_predictions,
    tune_config,
)
from .configs.inputs import InputMissingError, MissingInputsError, provide_inputs
from .configs.work_dir import WorkDirError, enter_work_dir, lock_work_dir, remove_run, set_work_dir
from .deltas.base_model import build_base, build_plain
from .deltas.delta_command import add_delta_commands, run_delta_command
from .deltas.delta_hook import DeltaHook
from .deltas.inference import ModelBank, init_bank, init_model
from .fsdp import GPSFSDPStrategy, ShardingError
from .hooks import BeforeAfterHook, GPSHook, TuneHook
from .optim import GPSAmpOptimWrapper, GPSOptimWrapper, WarmUpCosineLR
from .resuming.exact_resume_hook import ExactResumeHook
from .resuming.loaders import NoBatchError, check_batches
from .safe_loading import CheckpointFileError, refuse_delta, weights_only
from .selecting.micro_batches import MicroBatches
from .selecting.selection_batches import ClassBalancedSampler, ShuffledSampler
from .selecting.selection_loss import TaskLoss
from .selecting.supcon import ImageEmbedding, PixelEmbedding, SupConLoss
from .tuned_backbone import find_backbone, tuned_backbone

__all__ = [
    'METHOD_NAMES',
    'BeforeAfterHook',
    'CheckpointFileError',
    'ClassBalancedSampler',
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
    'ShuffledSampler',
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
    'init_bank',
    'init_model',
    'keep_training_config',
    'lock_work_dir',
    'provide_inputs',
    'read_config',
    'refuse_delta',
    'remove_run',
    'rooted_datasets',
    'run_delta_command',
    'set_work_dir',
    'show_predictions',
    'tune_config',
    'tuned_backbone',
    'weights_only',
]
