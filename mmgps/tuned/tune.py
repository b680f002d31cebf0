"""Choose what is trained of a model, and put it to training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mmgps.rewiring import Structure
from mmgps.selection import Selection, load_selection, sum_gradients
from mmgps.sparse import CompactTraining, LeanOption, unregister
from mmgps.tuning import METHODS, LinearProbe, TuningMethod, check_candidates, check_chosen, rebuild_method
from mmgps.tuning.methods import INJECTING
from mmgps.utils.text import nearest

from .conventions import classifiers, pretrained_part
from .optimizers import check_unsharded
from .processes import check_same, on_all_processes, selection_of_all, sum_over_processes
from .tuned import TrainingFactory, Tuned, check_untuned


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

    Build the optimizer, and wrap the model for distributed training, afterwards. In a distributed run all processes
    call this, each with its own batches or all with the same: they choose by the sum over all of them.

    Args:
        model: With the pre-trained weights in place, on its device.
        method: Name of a method, one of :data:`mmgps.tuning.METHODS`, or a method.
        target: Path of the pre-trained part, of which the method trains a little; ``''`` for the whole model. By
            default the one that :func:`pretrained_part` knows. Everything outside of it is trained in full.
        head: Paths of modules within ``target`` that are trained in full too, such as a new classifier. By default
            those that :func:`classifiers` knows.
        batches: What a method that chooses by gradients chooses by: the training data.
        loss: A batch of ``batches`` to its loss, a scalar. By default ``model(**batch).loss``, the convention of
            transformers.
        num_batches: How many of ``batches`` to take; None for all, or as many as their ``len`` says: the loaders of mm
            libraries start again at their end.
        selection: A selection, or a file of one, that the same method made before, instead of choosing.
        training: :class:`mmgps.sparse.CompactTraining`, or :class:`mmgps.sparse.MaskedTraining`, the slow obvious way.
        lean: Options that take time or memory off a step, such as :class:`mmgps.sparse.FusedAttention`.
        **options: Arguments of the method where it is given by name, such as ``k`` of ``'gps'``.

    Raises:
        ValueError: For a method, target, head or argument that does not exist, for missing batches, for a model that is
            tuned already, or where the method finds nothing to train.
        NonFiniteGradientError: If a gradient of the batches holds NaN or infinity.
        UntrainedError: If FSDP holds the model in parts.
        OtherProcessError: If choosing failed on another process of the run.
    """
    check_untuned(model)
    check_unsharded(model)
    chosen = build_method(method, options)
    path = _find_target(model, target)
    heads, backbone = _find_heads(model, path, head), model.get_submodule(path)
    unregister(model)  # of a tuned model that this one is a copy of
    before = Structure(model)
    try:
        if selection is None:
            made = selection_of_all(_select(model, backbone, chosen, heads, batches, loss, num_batches))
        else:
            made = selection if isinstance(selection, Selection) else load_selection(selection)
            if made.method != chosen.name:
                raise ValueError(f'the selection was made by {made.method!r}, not by {chosen.name!r}; name its method')
            check_same(made)
        tuned = Tuned(model, made, chosen, path, training, lean)
        tuned.start()
    except BaseException:
        before.restore()
        raise
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
        known = ', '.join(METHODS)
        raise ValueError(f'no method is called {method!r}; nearest: {nearest(method, METHODS)}; all: {known}')
    try:
        return METHODS[method](**options)
    except TypeError as error:
        raise TypeError(f'{method!r} does not take {sorted(options)}: {error}') from error


def method_for(selection: Selection) -> TuningMethod:
    """The method of ``selection``, to inject what it trains."""
    if selection.method in METHODS.keys() - INJECTING.keys():
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
            taken = islice(batches, _length(batches) if num_batches is None else num_batches)
            work = partial(sum_gradients, model, values, taken, loss or _DefaultLoss(model))
            gradients = on_all_processes(partial(work, accumulation=method.accumulation))
            sum_over_processes(gradients)
        made = method.select(backbone, gradients)
    finally:
        for module, mode in modes:
            module.training = mode
        for value in inside:
            value.requires_grad_(True)
    ids = set(map(id, inside))
    names = tuple(name for name, value in backbone.named_parameters() if id(value) in ids)
    if method.name != LinearProbe.name:
        check_chosen(made, backbone)
    elif not names and not _trains_outside(model, backbone):
        raise ValueError(
            f'{method.name!r} trains the head alone, and nothing outside of the target requires a gradient; name the '
            'new part by head=..., or the pre-trained part by target=...'
        )
    return replace(made, whole=(*made.whole, *names))


def _trains_outside(model: nn.Module, backbone: nn.Module) -> bool:
    inside = set(map(id, backbone.parameters()))
    return any(value.requires_grad and id(value) not in inside for value in model.parameters())


def _length(batches: Iterable[Any]) -> int | None:
    try:
        return len(batches)  # type: ignore[arg-type]
    except TypeError:  # it has none, or its data set has none
        return None


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
    if target is not None:
        _check_path(model, target, 'target', type(model).__name__)
        return target
    found = pretrained_part(model)
    if found is not None:
        return found
    children = [name for name, _ in model.named_children()]
    raise ValueError(
        f'which part of {type(model).__name__} is pre-trained? Set target to one of {", ".join(children)}, or to '
        "'' for all of it, with head=... for what is new in it"
    )


def _find_heads(model: nn.Module, target: str, head: str | Sequence[str]) -> list[str]:
    backbone = model.get_submodule(target)
    heads = ([head] if isinstance(head, str) else list(head)) or classifiers(backbone)
    for name in heads:
        _check_path(backbone, name, 'head', repr(target) if target else 'the model')
    return heads


def _check_path(module: nn.Module, path: str, argument: str, within: str) -> None:
    try:
        module.get_submodule(path)
    except AttributeError as error:
        near = nearest(path, [name for name, _ in module.named_modules() if name])
        raise ValueError(f'{argument} {path!r} is no part of {within}; nearest: {near}') from error
