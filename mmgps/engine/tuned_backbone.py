"""Find the backbone of a model, and build one with the method that its config names."""

from __future__ import annotations

import copy
from types import MethodType
from typing import Any

from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.registry import MODELS as ANY_MODELS
from torch import nn

from mmgps.registry import MODELS
from mmgps.rewiring import Injected
from mmgps.tuning import InjectionMethod, TuningMethod, WholeParameters, freeze_unselected, injected_by
from mmgps.utils.text import nearest

from .configs.components import build_method
from .safe_loading import weights_only


@MODELS.register_module(name='TunedBackbone')
def tuned_backbone(backbone: dict, method: dict, pretrained: str | None = None) -> nn.Module:
    """Build a backbone, inject a method and freeze what the method does not train.

    The result is the backbone itself, without a wrapper and with the names of the base, so that weights of the base
    load as usual. ``mmgps.TuneHook`` in ``custom_hooks`` finds the method here, reports the trained parameters, and
    checks a resumed run.

    Args:
        backbone: Config of the backbone.
        method: Config of a method that needs no gradients.
        pretrained: Argument of the backbone that a segmentor with ``pretrained`` sets.

    Raises:
        TypeError: For a method that selects by gradients, since these need weights and data.
        InjectionError: If the method does not support the backbone.
    """
    chosen = build_method(method)
    options = copy.deepcopy(backbone)
    if pretrained is not None:
        options['pretrained'] = pretrained
    with weights_only():
        built = ANY_MODELS.build(options)
    if hasattr(built, 'init_weights'):  # which reads ``pretrained``
        built.init_weights = MethodType(init_weights, built)
    if isinstance(chosen, InjectionMethod):
        chosen.inject(built)
        built.register_load_state_dict_post_hook(accept_base_weights)
    freeze_unselected(built, _selection(chosen, built))
    return built


def init_weights(backbone: Any, *args: Any, **options: Any) -> Any:
    """Run ``init_weights`` of a backbone without executing code in a file."""
    with weights_only():
        return type(backbone).init_weights(backbone, *args, **options)


def _selection(method: TuningMethod, backbone: nn.Module) -> Any:
    if not isinstance(method, WholeParameters):
        raise TypeError(
            f'{method.name} chooses connections when training starts and cannot be put in place before; leave the '
            "backbone as it is and add dict(type='mmgps.TuneHook', method=...) to custom_hooks"
        )
    return method.select(backbone)


def accept_base_weights(backbone: nn.Module, incompatible: Any) -> None:
    """Remove injected parameters from the missing keys when the weights of the base are loaded.

    Weights with only some of the injected parameters are damaged: then the missing ones stay listed.
    """
    names = [
        f'{path}.{name}'
        for path, module in backbone.named_modules()
        if isinstance(module, Injected)
        for name in [*dict(module.named_parameters()), *dict(module.named_buffers())]
    ]
    missing = incompatible.missing_keys
    prefixes = {key.removesuffix(names[0]) for key in missing if key.endswith(names[0])} if names else set()
    for prefix in prefixes:
        absent = {prefix + name for name in names}
        if absent <= set(missing):
            missing[:] = [key for key in missing if key not in absent]
            print_log(
                f'the loaded weights are those of the base: {len(names)} injected tensors keep their values', 'current'
            )


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside DDP or another wrapper, and inside test-time augmentation."""
    inner: Any = model
    while is_model_wrapper(inner) or isinstance(inner, BaseTTAModel):
        inner = inner.module
    return inner


def method_of(backbone: nn.Module, asked: TuningMethod | None) -> TuningMethod:
    """Return the method to tune ``backbone`` by: ``asked`` of the hook, or the method that the backbone was built with.

    Raises:
        ValueError: If there is neither, or if ``asked`` cannot replace the other.
    """
    in_place = injected_by(backbone)
    if in_place is not None and not isinstance(asked or in_place, InjectionMethod):
        assert asked is not None
        raise ValueError(
            f'the backbone was built with {in_place.name}, the hook asks for {asked.name}; name one method'
        )
    method = asked or in_place
    if method is None:
        raise ValueError(
            'the hook was given no method and the backbone has none in place; set method of the hook, or '
            "backbone=dict(type='mmgps.TunedBackbone', ...)"
        )
    return method


def find_backbone(model: nn.Module, target: str) -> nn.Module:
    """Find the submodule at path ``target``.

    Raises:
        ValueError: If there is none; names the nearest paths.
    """
    modules = dict(model.named_modules())
    if not target or target not in modules:
        top = ', '.join(name for name, _ in model.named_children())
        near = nearest(target, filter(None, modules), alike=0.5) or top
        raise ValueError(
            f'target {target!r} is no module of {type(model).__name__}; nearest: {near}; '
            'set target of the hook to the path of the backbone'
        )
    return modules[target]
