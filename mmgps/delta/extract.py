"""Take out of a trained network what its run changed."""

from __future__ import annotations

from torch import Tensor, nn

from mmgps.selection import Selection
from mmgps.sparse import Places, registered_in

from .base import Base, digest, listed, rests_of
from .delta import Delta, Origin
from .tensors import injected_names, tensors_of

NOTHING = Origin()


class DeltaExtractError(ValueError):
    """A run changed what its selection does not name."""


def extract(
    model: nn.Module, selection: Selection, base: Base, target: str = 'backbone', origin: Origin = NOTHING
) -> Delta:
    """What training changed in ``model``.

    Args:
        model: The trained network.
        selection: What was trained of its backbone.
        base: The backbone before training, read by :meth:`Base.of` with the same selection.
        target: Path of the backbone; empty if it is ``model``.
        origin: What to keep of the run.

    Raises:
        DeltaExtractError: If a number moved that is neither chosen, nor of a tensor that moves as a whole, nor of a
            buffer.
        SelectionMismatchError: If the selection was made for another architecture.
    """
    backbone = model.get_submodule(target)
    _check_rests(backbone, selection, base)
    chosen = {id(parameter.value): (parameter, item) for parameter, item in selection.resolve(backbone)}
    values: dict[str, Tensor] = {}
    tensors: dict[str, Tensor] = {}
    kept = _unchanged(backbone, base)
    _check_frozen(backbone, selection, kept)
    for name, value in tensors_of(model).items():
        if id(value) in chosen:
            parameter, item = chosen[id(value)]
            values[parameter.name] = Places(value, parameter.neurons, item).take().cpu()
        elif id(value) not in kept:
            tensors[name] = value.detach().cpu().contiguous().clone()
    return Delta(selection, values, tensors, base, target, origin)


def _unchanged(backbone: nn.Module, base: Base) -> set[int]:
    """Ids of the tensors of the base that have their bits from before."""
    return {id(value) for name, value in tensors_of(backbone).items() if base.digests.get(name) == digest(value)}


def _check_rests(backbone: nn.Module, selection: Selection, base: Base) -> None:
    unread = [name for name in selection.connections if name not in base.rests]
    if unread:
        raise DeltaExtractError(
            f'the base was read without the selection: nothing is known of the rest of {listed(unread)}; read it by '
            'Base.of(backbone, selection) before training'
        )
    now = rests_of(backbone, selection)
    moved = [name for name in selection.connections if now[name] != base.rests[name]]
    if moved:
        raise DeltaExtractError(
            f'numbers moved that were not chosen, in {listed(moved)}: the optimizer held more than the selection, or '
            'the base is another one'
        )
    new = injected_names(backbone) - set(selection.whole)
    if new:
        raise DeltaExtractError(f'the selection does not train {listed(sorted(new))}, which is beside the base')


def _check_frozen(backbone: nn.Module, selection: Selection, kept: set[int]) -> None:
    """Parameters, not buffers: statistics of norms move whatever is trained."""
    trained = {*selection.connections, *selection.whole}
    chosen = {*registered_in(backbone)}
    frozen = {n: value for n, value in backbone.named_parameters() if n not in trained and value not in chosen}
    moved = [name for name, value in frozen.items() if id(value) not in kept]
    if moved:
        raise DeltaExtractError(
            f'{len(moved)} parameters of the {type(backbone).__name__} that are not trained differ from the base, '
            f'first {listed(moved)}; expected those of the base, bit for bit: name the weights that the run started '
            'from (--base of tools/delta.py), or look for an optimizer that held more than the selection'
        )
