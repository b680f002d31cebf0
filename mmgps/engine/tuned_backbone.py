"""A backbone with a method in place, as a config names it."""

from __future__ import annotations

import copy
from types import MethodType
from typing import Any

from mmengine.logging import print_log
from mmengine.registry import MODELS as ANY_MODELS
from torch import nn

from mmgps.registry import MODELS
from mmgps.rewiring import Injected
from mmgps.tuning import InjectionMethod, TuningMethod, WholeParameters, freeze_unselected

from .checkpoints import weights_only
from .components import build_method


@MODELS.register_module(name='TunedBackbone')
def tuned_backbone(backbone: dict, method: dict, pretrained: str | None = None) -> nn.Module:
    """Build a backbone, put a method in place and freeze what it does not train.

    The result is the backbone itself: no wrapper, and the names of the base. Weights of the base load into it as they
    do without the method. ``mmgps.TuneHook`` beside it in ``custom_hooks`` takes the method from here, reports what is
    trained and checks on resuming.

    Args:
        backbone: Config of the backbone.
        method: Config of a method that needs no gradients.
        pretrained: Handed on to the backbone; a segmentor with ``pretrained`` sets it.

    Raises:
        TypeError: For a method that decides on gradients, which needs weights and data.
        InjectionError: If the method has no form for the backbone.
    """
    chosen = build_method(method)
    options = copy.deepcopy(backbone)
    if pretrained is not None:
        options['pretrained'] = pretrained
    with weights_only():
        built = ANY_MODELS.build(options)
    if hasattr(built, 'init_weights'):  # which is where it reads ``pretrained``
        built.init_weights = MethodType(init_weights, built)
    if isinstance(chosen, InjectionMethod):
        chosen.inject(built)
        built.register_load_state_dict_post_hook(accept_base_weights)
    freeze_unselected(built, _decided(chosen, built))
    return built


def init_weights(backbone: Any, *args: Any, **options: Any) -> Any:
    """The method of this name of a tuned backbone, which executes no code that a file holds."""
    with weights_only():
        return type(backbone).init_weights(backbone, *args, **options)


def _decided(method: TuningMethod, backbone: nn.Module) -> Any:
    if not isinstance(method, WholeParameters):
        raise TypeError(
            f'{method.name} chooses connections when training starts and cannot be put in place before; leave the '
            "backbone as it is and add dict(type='mmgps.TuneHook', method=...) to custom_hooks"
        )
    return method.select(backbone)


def accept_base_weights(backbone: nn.Module, incompatible: Any) -> None:
    """Let the weights of the base load without a complaint about every injected parameter.

    Weights that hold some injected parameters and not others are damaged: then the missing ones stay listed.
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
                f'the loaded weights are those of the base: {len(names)} injected tensors keep their numbers', 'current'
            )
