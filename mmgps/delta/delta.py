"""A delta, the numbers that a run changed: extract it from a trained network, and check that it fits a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mmgps.selection import Selection, bits
from mmgps.sparse import WeightIndex, registered_in
from mmgps.utils.text import listed

from .base import BaseFingerprint, DeltaMismatchError, digest, injected_names, rests_of, tensors_of


@dataclass(frozen=True)
class Origin:
    """The origin of a delta; JSON values.

    Args:
        metrics: Scores of the model, by name.
        config: The config of the run.
        dataset_meta: Metadata of the data set in mmseg: classes and their colours.
        epoch: Number of trained epochs.
        iteration: Number of trained iterations.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    dataset_meta: Mapping[str, Any] = field(default_factory=dict)
    epoch: int | None = None
    iteration: int | None = None


@dataclass(frozen=True)
class Delta:
    """The new values of the numbers that a run changed: base and delta give the trained network bit for bit.

    Args:
        selection: The trained numbers of the backbone, with the method and its settings.
        values: Weight of the backbone to the new numbers of its chosen connections, ``[chosen]`` in their order.
        tensors: Full tensors by their names in the network: trained parameters and changed buffers of the backbone,
            injected modules, and everything outside the backbone.
        base: The fingerprint of the backbone before training.
        target: Path of the backbone in the network; empty if the network is the backbone.
        origin: The origin of the delta.
    """

    selection: Selection
    values: Mapping[str, Tensor]
    tensors: Mapping[str, Tensor]
    base: BaseFingerprint
    target: str = 'backbone'
    origin: Origin = Origin()

    @property
    def k(self) -> int | None:
        """Connections per neuron, if the method has this setting."""
        return self.selection.settings.get('k')

    @property
    def prefix(self) -> str:
        """Prefix of the backbone's tensors in the network."""
        return f'{self.target}.' if self.target else ''

    def head(self) -> dict[str, Tensor]:
        """Tensors outside the backbone."""
        return {name: value for name, value in self.tensors.items() if not name.startswith(self.prefix)}

    def injected(self) -> set[str]:
        """Names, in the backbone, of the tensors of injected modules."""
        own = (name.removeprefix(self.prefix) for name in self.tensors if name.startswith(self.prefix))
        return {name for name in own if name not in self.base.digests}

    def __len__(self) -> int:
        """Count of all numbers in the delta."""
        return sum(value.numel() for value in (*self.values.values(), *self.tensors.values()))

    def equals(self, other: Delta) -> bool:
        """Return True if both hold the same numbers at the same positions of the same base, bit for bit."""
        return (
            self.selection.equals(other.selection)
            and (self.target, self.base.digests) == (other.target, other.base.digests)
            and same_bits(self.values, other.values)
            and same_bits(self.tensors, other.tensors)
        )


def same_bits(some: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> bool:
    """Return True if both hold tensors of the same names, types, shapes and bits."""
    return some.keys() == others.keys() and all(same(value, others[name]) for name, value in some.items())


def same(some: Tensor, other: Tensor) -> bool:
    """Return True if both have the same type, shape and bits."""
    return some.dtype == other.dtype and some.shape == other.shape and torch.equal(bits(some), bits(other))


NOTHING = Origin()


class DeltaExtractError(ValueError):
    """A run changed numbers that its selection does not name."""


def extract(
    model: nn.Module, selection: Selection, base: BaseFingerprint, target: str = 'backbone', origin: Origin = NOTHING
) -> Delta:
    """Extract the delta of a trained network.

    Args:
        model: The trained network.
        selection: The trained numbers of its backbone.
        base: Fingerprint of the backbone before training, read by :meth:`BaseFingerprint.of` with the same selection.
        target: Path of the backbone; empty if it is ``model``.
        origin: The origin to record.

    Raises:
        DeltaExtractError: If a number changed that is neither chosen, nor in a fully trained tensor, nor in a buffer.
        SelectionMismatchError: If the selection was made for another architecture.
    """
    backbone = model.get_submodule(target)
    _check_rests(backbone, selection, base)
    chosen = {id(parameter.value): (parameter, item) for parameter, item in selection.resolve(backbone)}
    values: dict[str, Tensor] = {}
    tensors: dict[str, Tensor] = {}
    kept = {id(value) for name, value in tensors_of(backbone).items() if base.digests.get(name) == digest(value)}
    _check_frozen(backbone, selection, kept)
    for name, value in tensors_of(model).items():
        if id(value) in chosen:
            parameter, item = chosen[id(value)]
            values[parameter.name] = WeightIndex(value, parameter.neurons, item).take().cpu()
        elif id(value) not in kept:
            tensors[name] = value.detach().cpu().contiguous().clone()
    return Delta(selection, values, tensors, base, target, origin)


def _check_rests(backbone: nn.Module, selection: Selection, base: BaseFingerprint) -> None:
    unread = [name for name in selection.connections if name not in base.rests]
    if unread:
        raise DeltaExtractError(
            f'the base was read without the selection, so the rest of {listed(unread)} is unknown; read it by '
            'BaseFingerprint.of(backbone, selection) before training'
        )
    now = rests_of(backbone, selection)
    moved = [name for name in selection.connections if now[name] != base.rests[name]]
    if moved:
        raise DeltaExtractError(
            f'numbers that were not chosen changed in {listed(moved)}: the optimizer held more than the selection, or '
            'this is another base'
        )
    new = injected_names(backbone) - set(selection.whole)
    if new:
        raise DeltaExtractError(f'the selection does not train {listed(sorted(new))}, which the base does not have')


def _check_frozen(backbone: nn.Module, selection: Selection, kept: set[int]) -> None:
    """Check that frozen parameters are among ``kept``, the ids of unchanged tensors. Buffers of norms may change."""
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


def verify(model: nn.Module, delta: Delta, base: BaseFingerprint | None = None) -> None:
    """Make sure that ``delta`` on ``model`` gives the network from which it was extracted, bit for bit.

    Args:
        model: With the numbers of the base in its backbone. Numbers outside the backbone do not matter.
        delta: The delta to apply.
        base: The base of ``model`` if known; else it is read, which takes time.

    Raises:
        DeltaMismatchError: If the backbone differs or has another delta applied, or if a full tensor of the delta has
            no counterpart of its shape and type; names the difference.
    """
    backbone = backbone_of(model, delta)
    delta.base.check(base or BaseFingerprint.of(backbone), f'the {type(backbone).__name__}')
    missing = {delta.prefix + name for name in delta.injected()}
    found = tensors_of(model)
    check_tensors({n: v for n, v in delta.tensors.items() if n not in missing or n in found}, found)
    injected = {delta.prefix + name for name in injected_names(backbone)}
    lacking = [n for n in found if n not in delta.tensors and (n in injected or not n.startswith(delta.prefix))]
    if lacking:
        raise DeltaMismatchError(
            f'the network has {listed(lacking)}, which the delta does not hold: it was made for another head or method'
        )


def backbone_of(model: nn.Module, delta: Delta) -> nn.Module:
    """The part of ``model`` that the delta tunes.

    Raises:
        DeltaMismatchError: If it has no such part.
    """
    try:
        return model.get_submodule(delta.target)
    except AttributeError as error:
        raise DeltaMismatchError(
            f'the delta tunes {delta.target!r}, and {type(model).__name__} has only '
            f'{", ".join(name for name, _ in model.named_children())}'
        ) from error


def check_tensors(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Make sure that ``found`` has a tensor of the same name, shape and type for each of ``wanted``.

    Raises:
        DeltaMismatchError: Names those without a counterpart.
    """
    absent = [name for name in wanted if name not in found]
    if absent:
        raise DeltaMismatchError(f'the delta holds {listed(absent)}, which the network does not have')
    wrong = [
        f'{name} {tuple(value.shape)} {value.dtype}, found {tuple(found[name].shape)} {found[name].dtype}'
        for name, value in wanted.items()
        if (value.shape, value.dtype) != (found[name].shape, found[name].dtype)
    ]
    if wrong:
        raise DeltaMismatchError(
            f'the delta holds tensors of another shape or type: {listed(wrong)}; build the network by the config of '
            'its run, which tools/delta.py info --json prints: each form of head needs its own network'
        )
