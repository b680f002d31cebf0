"""Shard frozen parameters over processes, and refuse runs that cannot be sharded."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

import torch
from mmengine.dist import all_gather_object, broadcast, get_world_size
from mmengine.model import BaseDataPreprocessor
from torch import nn

from mmgps.sparse import MaskedTraining
from mmgps.sparse.weight import is_sharded
from mmgps.utils.text import nearest

LISTS = (nn.ModuleList, nn.Sequential)
UNCALLED = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)


class ShardingError(ValueError):
    """FSDP cannot shard a run over processes."""


def check_parameters(model: nn.Module, frozen: Collection[nn.Parameter]) -> None:
    """Check that FSDP can cut each of ``frozen``.

    Raises:
        ShardingError: Names the parameter and the reason.
    """
    if not frozen:
        raise ShardingError(
            'the method trains the whole model, and only frozen parameters are sharded; train it by mmengine without '
            "mmgps, under strategy=dict(type='FSDPStrategy'), or choose another method"
        )
    wanted = {id(value) for value in frozen}
    names: dict[int, str] = {}
    for path, module in model.named_modules():
        for attribute, value in module.named_parameters(path, recurse=False):
            if id(value) not in wanted:
                continue
            if isinstance(module, nn.RNNBase):
                raise ShardingError(f'{path} is a {type(module).__name__}, which keeps its weights in a second list')
            if id(value) in names:
                raise ShardingError(
                    f'{names[id(value)]} and {attribute} are tied: gathering one of them would not gather the other; '
                    'train without FSDP'
                )
            if not value.is_contiguous():
                raise ShardingError(
                    f'{attribute} is laid out with strides {value.stride()}, and FSDP cuts contiguous tensors only; '
                    'leave out channels_last'
                )
            names[id(value)] = attribute


def check_run(runner: Any, sparse: dict[str, Any]) -> None:
    """Check that nothing in the run needs the full model on one process; ``sparse`` configures the sparse training.

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
            "processes would wait for each other forever; set mode='whole', or set val_cfg, val_dataloader and "
            'val_evaluator to None and test the checkpoint by tools/test.py'
        )
    batches = all_gather_object(len(runner.val_dataloader))
    if len(set(batches)) > 1:
        raise ShardingError(
            f'the processes have {batches} batches to validate, and each must call the model as often as the others; '
            'set round_up=True of the sampler'
        )


def shard_frozen(
    model: nn.Module, trained: Collection[nn.Parameter], device: torch.device, units: Sequence[str] | None = None
) -> None:
    """Shard each parameter of ``model`` that is not ``trained`` over the processes, in place.

    FSDP2 gathers the parameters of a unit for its forward and its backward, and frees them afterwards. Trained
    parameters stay complete on every process, with the values of process 0. The model moves to ``device`` unit by
    unit: the device never holds all of it.

    Args:
        model: Model on the CPU or on ``device``, the same on all processes.
        trained: Parameters that are not sharded.
        device: Device of this process.
        units: Names of the classes whose modules are gathered as a whole; by default see :func:`repeated_layers`.

    Raises:
        ShardingError: If nothing is frozen, or if FSDP cannot cut a frozen parameter.
        ValueError: If a name of ``units`` matches no module.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    whole = {id(value) for value in trained}
    frozen = [value for value in model.parameters() if id(value) not in whole and value.dim()]
    check_parameters(model, frozen)
    for value in frozen:
        value.requires_grad_(False)
    left = set(model.parameters()) - set(frozen)
    mesh = init_device_mesh(device.type, (get_world_size(),))
    cut = partial(fully_shard, mesh=mesh, reshard_after_forward=True, shard_placement_fn=even_cut, ignored_params=left)
    for unit in reversed(named_units(model, units) if units else repeated_layers(model, frozen)):
        cut(unit)
    cut(model)
    for value in trained:
        value.data = value.data.to(device)
        broadcast(value.data)
    for module in model.modules():
        if isinstance(module, BaseDataPreprocessor):
            module.to(device)


def even_cut(value: nn.Parameter) -> Any:
    """Shard along the first dimension that the processes share evenly, else unevenly along dimension 0."""
    from torch.distributed.tensor import Shard

    return Shard(next((d for d, size in enumerate(value.shape) if size % get_world_size() == 0), 0))


def repeated_layers(model: nn.Module, frozen: Collection[nn.Parameter]) -> list[nn.Module]:
    """Find the innermost members of lists and sequences with two or more layers with frozen parameters: mostly blocks.

    A module may call parts of a stage from outside, and FSDP would not gather them for it, so only innermost members
    are units. FSDP gathers the remaining parameters for the whole forward pass.
    """
    wanted = {id(value) for value in frozen}
    members = [child for part in model.modules() if isinstance(part, LISTS) for child in part.children()]
    found = {id(m): m for m in members if not isinstance(m, UNCALLED) and _layers_of(m, wanted) > 1}
    return [m for m in found.values() if not any(id(part) in found for part in m.modules() if part is not m)]


def _layers_of(module: nn.Module, wanted: Collection[int]) -> int:
    return sum(any(id(value) in wanted for value in part.parameters(recurse=False)) for part in module.modules())


def named_units(model: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    """Find the modules of classes ``names``, outer modules first.

    Raises:
        ValueError: Names the nearest classes for one that matches nothing.
    """
    classes = sorted({type(module).__name__ for module in model.modules()})
    for name in names:
        if name not in classes:
            near = nearest(name, classes)
            raise ValueError(f'units of the strategy name {name!r}, and no module of the model is one; nearest: {near}')
    return [module for module in model.modules() if type(module).__name__ in names]


def held_bytes(model: nn.Module) -> tuple[int, int]:
    """Count the bytes of the sharded parameters of ``model``, on this process and on all processes together."""
    sharded: list[Any] = [value for value in model.parameters() if is_sharded(value)]
    here = sum(value.to_local().nbytes for value in sharded)
    return here, sum(value.numel() * value.element_size() for value in sharded)


def gathered_state(model: nn.Module, keep: bool) -> dict[str, Any]:
    """Gather the state dict of ``model`` with full tensors on the CPU, on processes that ``keep``; all must call.

    The device holds one full tensor at a time.
    """
    state: dict[str, Any] = {}
    for name, value in model.state_dict().items():
        whole = value.full_tensor() if is_sharded(value) else value
        if keep:
            state[name] = whole.detach().cpu()
    return state
