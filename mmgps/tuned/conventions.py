"""Find the pre-trained part and the new head of a model by the conventions of its library."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

BACKBONE = 'backbone'
"""Attribute of the pre-trained part in mm libraries, torchvision's detectors and segmentors, and many other models."""
ENCODER = 'encoder'
"""The same in segmentation-models-pytorch."""
CLASSIFIERS = ('fc', 'classifier', 'head', 'heads')
"""Last part of torchvision's image and video classifiers, whose last layer is new where the classes are."""


def pretrained_part(model: nn.Module) -> str | None:
    """Path of the pre-trained part of ``model``, empty for the whole; None for a model of no known convention.

    ``backbone`` of a model that has one; the base model of transformers; the encoder of segmentation-models-pytorch;
    the whole of a classifier of timm or torchvision, see :func:`classifiers`.
    """
    children = dict(model.named_children())
    base = getattr(model, 'base_model_prefix', '') if comes_from(model, 'transformers') else ''
    for path in (BACKBONE, base, ENCODER if comes_from(model, 'segmentation_models_pytorch') else ''):
        if path in children:
            return path
    return '' if classifiers(model) else None


def classifiers(model: nn.Module) -> list[str]:
    """Paths of the classifiers within a network of timm or torchvision; empty for other networks.

    timm names them. In torchvision's image and video classifiers it is the last layer; encoders that extend one of
    these have none.
    """
    if comes_from(model, 'timm'):
        return _timm_classifiers(model)
    if comes_from(model, 'torchvision.models') and BACKBONE not in dict(model.named_children()):
        layers = [name for name, part in model.named_modules() if [*part.parameters(recurse=False)]]
        return [name for name in layers[-1:] if name.partition('.')[0] in CLASSIFIERS]
    return []


def comes_from(model: nn.Module, package: str) -> bool:
    """True if the class of ``model``, or one that it extends, is defined in ``package``."""
    return any(f'{kind.__module__}.'.startswith(f'{package}.') for kind in type(model).__mro__)


def _timm_classifiers(model: nn.Module) -> list[str]:
    settings = getattr(model, 'pretrained_cfg', None) or getattr(model, 'default_cfg', None)
    named = settings.get('classifier') if isinstance(settings, Mapping) else None
    paths = [named] if isinstance(named, str) else list(named or ())
    if not paths:  # built by its class, or with a configuration of the user's own
        parts = set(map(id, _modules(getattr(model, 'get_classifier', lambda: ())())))
        paths = [path for path, part in model.named_modules() if id(part) in parts]
    known = dict(model.named_modules())
    return [path for path in paths if path in known]


def _modules(value: Any) -> Iterator[nn.Module]:
    if isinstance(value, nn.Module):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _modules(part)
