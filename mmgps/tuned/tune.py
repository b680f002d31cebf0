"""Choose what is trained of a model, and put it to training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mmgps.selection import Selection, load_selection, sum_gradients
from mmgps.sparse import CompactTraining, LeanOption, unregister
from mmgps.tuning import (
    GPS,
    SSF,
    Adapter,
    BiasTuning,
    FullTuning,
    LinearProbe,
    LoRA,
    SPTAdapter,
    SPTLoRA,
    TuningMethod,
    VPTDeep,
    VPTShallow,
    check_candidates,
    check_chosen,
    rebuild_method,
)

from .tuned import TrainingFactory, Tuned, tuned_of

METHODS: dict[str, Callable[..., TuningMethod]] = {
    kind.name: kind
    for kind in (
        GPS,
        BiasTuning,
        LinearProbe,
        FullTuning,
        LoRA,
        Adapter,
        SSF,
        VPTShallow,
        VPTDeep,
        SPTLoRA,
        SPTAdapter,
    )
}
"""Every method of the package by its name."""


def tune(
    model: nn.Module,
    method: str | TuningMethod = 'gps',
    *,
    target: str | None = None,
    head: str | Sequence[str] = (),
    batches: Iterable[Any] | None = None,
    loss: Callable[[Any], Tensor] | None = None,
    num_batches: int | None = None,
    selection: Selection | str | Path | None = None,
    training: TrainingFactory = CompactTraining,
    lean: Sequence[LeanOption] = (),
    **options: Any,
) -> Tuned:
    """Tune ``model`` by ``method``: choose what is trained, freeze the rest, and make it ready for any training loop.

    Build the optimizer, and wrap the model for distributed training, afterwards.

    Args:
        model: With the pre-trained weights in place, on its device.
        method: Name of a method, one of :data:`METHODS`, or a method.
        target: Path of the pre-trained part, of which the method trains a little; ``''`` for the whole model. By
            default ``'backbone'``, or the part that transformers calls the base model, or the whole model of timm.
            Everything outside of it is trained in full.
        head: Paths of modules within ``target`` that are trained in full too, such as a new classifier. By default the
            classifier of a timm model, and none of others.
        batches: What a method that chooses by gradients chooses by: the training data.
        loss: A batch of ``batches`` to its loss, a scalar. By default ``model(**batch).loss``, the convention of
            transformers.
        num_batches: How many of ``batches`` to take; None for all.
        selection: A selection, or a file of one, that the same method made before, instead of choosing.
        training: :class:`mmgps.sparse.CompactTraining`, or :class:`mmgps.sparse.MaskedTraining`, the slow obvious way.
        lean: Options that take time or memory off a step, such as :class:`mmgps.sparse.FusedAttention`.
        **options: Arguments of the method where it is given by name, such as ``k`` of ``'gps'``.

    Raises:
        ValueError: For a method, target, head or argument that does not exist, for missing batches, for a model that is
            tuned already, or where the method finds nothing to train.
        NonFiniteGradientError: If a gradient of the batches holds NaN or infinity.
    """
    if tuned_of(model) is not None:
        raise ValueError('the model is tuned already; call merge() or unload() of what mmgps.tune returned before')
    chosen = build_method(method, options)
    path, heads = _find_target(model, target), _find_heads(model, target, head)
    backbone = model.get_submodule(path)
    unregister(model)  # of a tuned model that this one is a copy of
    if selection is None:
        made = _select(model, backbone, chosen, heads, batches, loss, num_batches)
    else:
        made = selection if isinstance(selection, Selection) else load_selection(selection)
        if made.method != chosen.name:
            raise ValueError(f'the selection was made by {made.method!r}, not by {chosen.name!r}; name its method')
    tuned = Tuned(model, made, chosen, path, training, lean)
    tuned.start()
    return tuned


def build_method(method: str | TuningMethod, options: Mapping[str, Any]) -> TuningMethod:
    """The method of a name with its arguments, or ``method`` itself.

    Raises:
        ValueError: For an unknown name, or arguments beside a method.
        TypeError: For arguments that the method does not have.
    """
    if not isinstance(method, str):
        if options:
            raise ValueError(f'{sorted(options)} go to the method, which is given as {type(method).__name__} already')
        return method
    if method not in METHODS:
        near = get_close_matches(method, METHODS, 3, 0.0)
        raise ValueError(f'no method is called {method!r}; nearest: {", ".join(near)}; all: {", ".join(METHODS)}')
    try:
        return METHODS[method](**options)
    except TypeError as error:
        raise TypeError(f'{method!r} does not take {sorted(options)}: {error}') from error


def method_of(selection: Selection) -> TuningMethod:
    """A method that puts in place what ``selection`` trains."""
    if selection.method in (GPS.name, BiasTuning.name, LinearProbe.name, FullTuning.name):
        return METHODS[selection.method]()
    return rebuild_method(selection)


def _select(
    model: nn.Module,
    backbone: nn.Module,
    method: TuningMethod,
    heads: Sequence[str],
    batches: Iterable[Any] | None,
    loss: Callable[[Any], Tensor] | None,
    num_batches: int | None,
) -> Selection:
    modes = [(module, module.training) for module in model.modules()]
    inside = [value for path in heads for value in backbone.get_submodule(path).parameters() if value.requires_grad]
    for value in inside:
        value.requires_grad_(False)
    model.train()
    try:
        check_candidates(method, backbone)
        gradients = None
        if method.needs_gradient:
            if batches is None:
                raise ValueError(f'{method.name!r} chooses by gradients: pass batches, the training data, and loss')
            values = {name: entry.value for name, entry in method.candidates(backbone).items()}
            taken = islice(batches, num_batches)
            gradients = sum_gradients(
                model, values, taken, loss or _DefaultLoss(model), accumulation=method.accumulation
            )
        made = method.select(backbone, gradients)
    finally:
        for module, mode in modes:
            module.training = mode
        for value in inside:
            value.requires_grad_(True)
    if method.name != LinearProbe.name:
        check_chosen(made, backbone)
    ids = set(map(id, inside))
    names = tuple(name for name, value in backbone.named_parameters() if id(value) in ids)
    return replace(made, whole=(*made.whole, *names))


class _DefaultLoss:
    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def __call__(self, batch: Any) -> Tensor:
        found = getattr(self._model(**batch), 'loss', None) if isinstance(batch, Mapping) else None
        if not isinstance(found, Tensor):
            raise ValueError(
                f'{type(self._model).__name__} gives no loss for a batch of type {type(batch).__name__}; pass loss, a '
                'function of a batch to its scalar loss'
            )
        return found


def _find_target(model: nn.Module, target: str | None) -> str:
    children = [name for name, _ in model.named_children()]
    if target is not None:
        try:
            model.get_submodule(target)
        except AttributeError as error:
            near = get_close_matches(target, [name for name, _ in model.named_modules() if name], 3, 0.0)
            raise ValueError(
                f'target {target!r} is no part of {type(model).__name__}; nearest: {", ".join(near)}'
            ) from error
        return target
    for path in ('backbone', getattr(model, 'base_model_prefix', '')):
        if path in children:
            return str(path)
    if _timm_classifiers(model):
        return ''
    raise ValueError(
        f'which part of {type(model).__name__} is pre-trained? Set target to one of {", ".join(children)}, or to '
        "'' for all of it, with head=... for what is new in it"
    )


def _find_heads(model: nn.Module, target: str | None, head: str | Sequence[str]) -> list[str]:
    heads = [head] if isinstance(head, str) else list(head)
    path = _find_target(model, target)
    backbone = model.get_submodule(path)
    if not heads and backbone is model:
        heads = _timm_classifiers(model)
    for name in heads:
        try:
            backbone.get_submodule(name)
        except AttributeError as error:
            near = get_close_matches(name, [name for name, _ in backbone.named_modules() if name], 3, 0.0)
            raise ValueError(
                f'head {name!r} is no part of {path or "the model"!r}; nearest: {", ".join(near)}'
            ) from error
    return heads


def _timm_classifiers(model: nn.Module) -> list[str]:
    """Paths of the classifiers that a model of timm names in its configuration; empty for other models."""
    named = getattr(model, 'pretrained_cfg', None) or getattr(model, 'default_cfg', None)
    found = named.get('classifier') if isinstance(named, Mapping) else None
    paths = [found] if isinstance(found, str) else list(found or ())
    return [path for path in paths if any(name == path for name, _ in model.named_modules())]
