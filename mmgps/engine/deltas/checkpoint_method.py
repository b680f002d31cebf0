"""Make a network follow the method that its checkpoint was trained with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import nn

from mmgps.delta import inject_missing
from mmgps.delta.base import below, injected_names
from mmgps.registry import METHODS
from mmgps.rewiring import Injected
from mmgps.selection import Selection, unpack_selection
from mmgps.tuning import TuningMethod, injected_by, unload
from mmgps.tuning.injected import KEYS
from mmgps.tuning.methods import INJECTING
from mmgps.utils.text import listed

from ..configs.components import METHOD_NAMES
from ..fsdp.wrapping import check_made_before, check_same_names
from ..tuned_backbone import find_backbone, unwrapped

CHECKPOINT_KEY = 'mmgps_selection'
"""Key under which a checkpoint holds its selection."""


def follow_in_test(
    runner: Runner, checkpoint: Mapping[str, Any], target: str, method: TuningMethod | None = None
) -> None:
    """Inject the modules of ``checkpoint`` into the model that ``runner`` tests, whichever ``method`` the config has.

    Raises:
        ValueError: See :func:`follow_checkpoint`; also if a hook holds a copy of the model from before the injection.
    """
    model, state = unwrapped(runner.model), checkpoint.get('state_dict', checkpoint)
    packed = checkpoint.get(CHECKPOINT_KEY)
    holds = packed is not None or any(isinstance(module, Injected) for module in model.modules())
    if not holds and not injected_in(state, target):
        return
    selection = None if packed is None else unpack_selection(packed)
    if follow_checkpoint(model, target, state, selection, method):
        check_same_names(runner)
    method = injected_by(find_backbone(model, target)) or method
    if method is not None:
        check_made_before(runner, method, target)


def follow_checkpoint(
    model: nn.Module,
    target: str,
    state: Mapping[str, Any],
    selection: Selection | None,
    method: TuningMethod | None = None,
) -> bool:
    """Give ``model`` the injected modules that a checkpoint was trained with, and no others.

    Args:
        model: Model of any config, with or without injected modules.
        target: Path of the backbone, unless the weights show another.
        state: Weights of the checkpoint; empty if it holds a delta.
        selection: Selection of the checkpoint; without one the names in ``state`` decide.
        method: Method of the config, if it has one.

    Returns:
        True if the model was changed.

    Raises:
        ValueError: If the weights hold injected tensors and no selection records the settings of their method.
        DeltaMismatchError: If the method does not fit the backbone.
    """
    if selection is not None:
        target = trained_target(state, selection) or target
    backbone = find_backbone(model, target)
    own = set(backbone.state_dict()) - injected_names(backbone)
    there, kept = injected_names(model), injected_by(backbone)
    names = injected_in(state, target) if selection is None else possibly_injected(selection, method)
    wanted = {below(target, name) for name in names - own}
    if wanted == there and (selection is None or not wanted or kept is None or agrees(kept, selection)):
        return False
    if selection is None and wanted:
        raise ValueError(
            f'the checkpoint holds {listed(sorted(wanted))} beside the base and does not name the method, and the '
            f'{type(backbone).__name__} of the config has {listed(sorted(there))}; test it by the config that it was '
            'trained with, or give an unpublished checkpoint, which has its selection'
        )
    asked = method or kept
    if there:
        for part in model.modules():
            unload(part)
    if wanted:
        assert selection is not None
        agreeing = method if method is not None and agrees(method, selection) else None
        inject_missing(backbone, selection, names - own, agreeing)
    print_log(
        f'the checkpoint was trained by {selection.method if selection else "no method that adds modules"}, the config '
        f'asks for {asked.name if asked else "no method"}: the network follows the checkpoint',
        'current',
    )
    return True


def trained_target(state: Mapping[str, Any], selection: Selection) -> str | None:
    """Find the path of the backbone of ``selection`` by the names of the weights; None if they are ambiguous."""
    names = [*selection.whole, *selection.connections]
    paths = {key.removesuffix(f'.{names[0]}') for key in state if key.endswith(f'.{names[0]}')} if names else set()
    fitting = [path for path in paths if all(f'{path}.{name}' in state for name in names)]
    return fitting[0].removeprefix('module.') if len(fitting) == 1 else None


def possibly_injected(selection: Selection, method: TuningMethod | None) -> set[str]:
    """Names that a selection trains in full, if its method may have added modules; else none."""
    plain = {METHODS.get(entry['type']).name for entry in METHOD_NAMES.values()} - INJECTING.keys()
    ours = selection.method in plain and not (method is not None and agrees(method, selection))
    return set() if ours else set(selection.whole)


def agrees(method: TuningMethod, selection: Selection) -> bool:
    """Return True if ``method`` made ``selection``, as far as the selection records it."""
    here = method.settings()
    return method.name == selection.method and all(here.get(key) == value for key, value in selection.settings.items())


def injected_in(state: Mapping[str, Any], target: str) -> set[str]:
    """Names of injected tensors in a state dict, relative to the backbone at ``target``."""
    prefix = below(target, '')
    inside = (name.removeprefix('module.') for name in state)
    return {name.removeprefix(prefix) for name in inside if name.startswith(prefix) and KEYS & {*name.split('.')[:-1]}}


def check_nothing_lost(model: nn.Module, target: str, state: Mapping[str, Any]) -> None:
    """Check that no injected tensor of ``state`` is dropped when ``model`` loads it for training.

    Raises:
        ValueError: If ``state`` holds injected tensors that the backbone at ``target`` lacks.
    """
    lost = injected_in(state, target) - set(find_backbone(model, target).state_dict())
    if lost:
        raise ValueError(
            f'load_from names a network with {len(lost)} tensors in addition to its base, {listed(sorted(lost))}, '
            'which the backbone of the config lacks and would lose; write it as a plain network by '
            'python tools/delta.py merge, or continue with its method by --resume'
        )


def check_not_thin(runner: Runner, checkpoint: Mapping[str, Any]) -> None:
    """Refuse a checkpoint without weights unless a hook fills them in."""
    thin = 'state_dict' in checkpoint and not checkpoint['state_dict']
    if thin and not any(hasattr(hook, 'thin_checkpoints') for hook in runner.hooks):
        raise ValueError(
            "the checkpoint is thin, with a delta instead of the weights; add dict(type='mmgps.DeltaHook') to "
            'custom_hooks, which applies the delta to the base that the config names'
        )
