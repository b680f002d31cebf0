"""Refuse runs and parameters that FSDP cannot shard."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from mmengine.dist import all_gather_object
from torch import nn

from mmgps.sparse import MaskedTraining


class ShardingError(ValueError):
    """A run that cannot be spread over processes by FSDP."""


def check_parameters(model: nn.Module, frozen: Collection[nn.Parameter]) -> None:
    """Check that FSDP can cut each of ``frozen``.

    Raises:
        ShardingError: Names the parameter and the reason.
    """
    if not frozen:
        raise ShardingError(
            'the method trains all of the model, and only what is frozen is sharded; train it by mmengine without '
            "mmgps, under strategy=dict(type='FSDPStrategy'), or choose another method"
        )
    wanted = {id(value) for value in frozen}
    names: dict[int, str] = {}
    for path, module in model.named_modules():
        for attribute, value in module.named_parameters(path, recurse=False):
            if id(value) not in wanted:
                continue
            if isinstance(module, nn.RNNBase):
                raise ShardingError(f'{path} is a {type(module).__name__}, which keeps its weights in a list besides')
            if id(value) in names:
                raise ShardingError(
                    f'{names[id(value)]} and {attribute} are tied: gathering one of them would leave the other behind; '
                    'train without FSDP'
                )
            if not value.is_contiguous():
                raise ShardingError(
                    f'{attribute} is laid out with strides {value.stride()}, and FSDP cuts contiguous tensors only; '
                    'leave out channels_last'
                )
            names[id(value)] = attribute


def check_run(runner: Any, sparse: dict[str, Any]) -> None:
    """Check that nothing in the run needs the full model on one process.

    Args:
        runner: Runner that is about to train.
        sparse: Config of the sparse training.

    Raises:
        ShardingError: Names the part of the run and the reason.
    """
    if sparse['type'] in ('MaskedTraining', 'mmgps.MaskedTraining', MaskedTraining):
        raise ShardingError(
            'mmgps.MaskedTraining makes dense gradients and keeps a copy of the whole base on each process; leave out '
            'sparse of the hook'
        )
    for hook in runner.hooks:
        instead = 'train without it' if hasattr(hook, 'ema_model') else getattr(hook, 'needs_whole_model', None)
        if instead:
            raise ShardingError(
                f'{type(hook).__name__} needs the full model on one process, which holds only a part; leave it out, '
                f'and {instead}'
            )
    if runner._val_loop is not None:
        _check_validation(runner)


def _check_validation(runner: Any) -> None:
    """Check that all processes call the model equally often in validation."""
    if any((getattr(part, 'test_cfg', None) or {}).get('mode') == 'slide' for part in runner.model.modules()):
        raise ShardingError(
            "test_cfg.mode='slide' calls the model once per window, and images may have unequal numbers of them: the "
            "processes would wait for each other for ever; set mode='whole', or set val_cfg, val_dataloader and "
            'val_evaluator to None and test the checkpoint by tools/test.py'
        )
    batches = all_gather_object(len(runner.val_dataloader))
    if len(set(batches)) > 1:
        raise ShardingError(
            f'the processes have {batches} batches to validate, and each has to call the model as often as the others; '
            'set round_up=True of the sampler'
        )
