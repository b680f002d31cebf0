"""Masked and compact training of the same network, side by side."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from itertools import cycle

import pytest
import torch
from torch import Tensor, nn

from mmgps.selection import RandomScore, Selection
from mmgps.sparse import CompactTraining, MaskedTraining, SparseTraining
from mmgps.sparse.routes import GradientKernel, LayerCost
from mmgps.tuned import Tuned, method_for
from mmgps.tuning import GPS

Loss = Callable[[nn.Module, int], Tensor]
OPTIMIZERS = {
    'adamw': lambda values: torch.optim.AdamW(values, lr=1e-2, weight_decay=0.05),
    'sgd': lambda values: torch.optim.SGD(values, lr=1e-2, momentum=0.9, weight_decay=0.05),
    'slow-sgd': lambda values: torch.optim.SGD(values, lr=3e-5, momentum=0.9, weight_decay=0.05),
}
ROUTES = (GradientKernel.COLUMNS, GradientKernel.GATHER, GradientKernel.DENSE)

# Tensors whose numbers are all smaller are compared on this scale: some are zero but for rounding, such as the running
# mean of a linear map of what a normalisation has just centred.
TINY = 1e-3


def random_selection(backbone: nn.Module, k: int = 1, **options) -> Selection:
    return GPS(k, score=RandomScore(), **options).select(backbone)


def uneven(maps: Iterable[Tensor]) -> Tensor:
    """A loss of feature maps. It weighs their numbers unevenly: a norm leaves sum and sum of squares as they are."""
    generator = torch.Generator().manual_seed(0)
    weighed = [(torch.randn(y.shape, generator=generator).to(y) * y + y.square()).mean() for y in maps]
    return torch.stack(weighed).sum()


def take_routes_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layer by layer another route: the cost rule takes the dense one for nearly all layers of a small network."""
    turns = cycle(ROUTES)
    monkeypatch.setattr(LayerCost, 'costs', lambda work: {next(turns): 0.0})


def prepare(
    kind: type, backbone: nn.Module, selection: Selection, optimizer: str = 'adamw', registered: bool = True
) -> tuple[SparseTraining, torch.optim.Optimizer]:
    """Start training of ``selection``, and build an optimizer of what it trains."""
    tuned = Tuned(backbone, selection, method_for(selection), '', kind)
    held = tuned.parameters()
    tuned.training.start(registered)
    return tuned.training, OPTIMIZERS[optimizer](held)


def train(
    kind: type,
    base: nn.Module,
    selection: Selection,
    loss: Loss,
    steps: int = 20,
    optimizer: str = 'adamw',
    registered: bool = True,
) -> nn.Module:
    """A copy of ``base`` after ``steps`` of training; ``loss`` gets the network and the number of the step."""
    network = copy.deepcopy(base)
    training, optim = prepare(kind, network, selection, optimizer, registered)
    for step in range(steps):
        torch.manual_seed(step)
        optim.zero_grad()
        loss(network, step).backward()
        training.before_step()
        optim.step()
        training.after_step()
    return network


def assert_equal_training(
    base: nn.Module,
    selection: Selection,
    loss: Loss,
    steps: int = 20,
    optimizer: str = 'adamw',
    within: float = 1e-10,
    registered: bool = True,
) -> None:
    """Compact training gives what masked training gives, moves what is selected, and keeps all else bit-identical."""
    masked, compact = (
        train(kind, base, selection, loss, steps, optimizer, registered) for kind in (MaskedTraining, CompactTraining)
    )
    found, expected, before = compact.state_dict(), masked.state_dict(), base.state_dict()
    assert list(found) == list(before)
    for name, value in expected.items():
        if value.is_floating_point() and value.numel():
            error = (found[name] - value).abs().max() / value.abs().max().clamp_min(TINY)
            assert error <= within, (name, float(error))
    for parameter, connections in selection.resolve(base):
        mask = connections.mask(parameter.neurons)
        after, start = found[parameter.name], before[parameter.name]
        assert torch.equal(after[~mask], start[~mask]), parameter.name
    moved = sum(int((found[p.name] != before[p.name]).sum()) for p, _ in selection.resolve(base))
    assert moved > 0.5 * len(selection)
