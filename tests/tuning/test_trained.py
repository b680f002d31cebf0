"""Each trained tensor belongs to one optimizer, which steps the parameters in its groups at a rate above zero."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from mmgps.tuning import (
    SSF,
    UntrainedError,
    check_held,
    kept_elsewhere,
    merge_operations,
    neutralize_unused,
    resting,
    trained_tensors,
)


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


def test_each_tensor_is_held_by_one_optimizer() -> None:
    model = net()
    trained = trained_tensors(model, {}, {})
    values = [entry.value for entry in trained]
    check_held(trained, [torch.optim.SGD(values[:1], lr=0.1), torch.optim.Adam(values[1:], lr=0.1)])
    with pytest.raises(UntrainedError, match=r"^1 tensors .* no optimizer holds them: '0\.weight'; let"):
        check_held(trained, [torch.optim.SGD(values[1:], lr=0.1)])
    other = torch.optim.Adagrad([nn.Parameter(torch.zeros(1))])
    both = [torch.optim.SGD(values, lr=0.1), other, torch.optim.Adam(values[:1], lr=0.1)]
    with pytest.raises(UntrainedError, match=r"^1 tensors .* by more than one optimizer \(SGD, Adam\).*: '0\.weight'"):
        check_held(trained, both)
    with pytest.raises(UntrainedError, match='nothing is trained'):
        check_held([], [])


def test_a_tensor_that_one_optimizer_lists_twice_is_held_once() -> None:
    trained = trained_tensors(net(), {}, {})
    with pytest.warns(UserWarning, match='duplicate'):
        optimizer = torch.optim.SGD([entry.value for entry in [*trained, trained[0]]], lr=0.1)
    check_held(trained, [optimizer])


def test_what_is_frozen_or_empty_is_not_counted() -> None:
    model = net()
    model[0].weight.requires_grad_(False)
    model[1].bias.requires_grad_(False)
    values = nn.Parameter(torch.zeros(2))
    trained = trained_tensors(model, {model[0].weight: values, model[1].weight: nn.Parameter(torch.zeros(0))}, {})
    assert [(entry.name, entry.value.shape) for entry in trained] == [('0.weight', (2,)), ('0.bias', (4,))]
    assert trained[0].value is values


def test_rates_of_zero() -> None:
    """A schedule that starts at zero does not count, since it records its initial rate."""
    trained = trained_tensors(net(), {}, {})
    first, second = [entry.value for entry in trained][:2]
    groups = [dict(params=[first], lr=0.0), dict(params=[second], lr=0.0, initial_lr=0.1)]
    assert resting(trained, [torch.optim.SGD(groups, lr=0.1)]) == ['0.weight']


class Kept(torch.optim.SGD):
    """Steps the parameters it was built with, even if its groups change."""

    def __init__(self, values: list[nn.Parameter], lr: float) -> None:
        super().__init__(values, lr)
        self.inner = torch.optim.SGD([dict(params=list(values))], lr)


class Around(torch.optim.SGD):
    """Passes its groups to another optimizer, like SAM and Lookahead."""

    def __init__(self, values: list[nn.Parameter], lr: float) -> None:
        super().__init__(values, lr, momentum=0.9)
        self.inner = torch.optim.SGD(self.param_groups, lr)
        self.inner.outer = self

    def step(self, closure: Any = None) -> None:
        self.inner.step()


def test_parameters_that_are_kept_outside_of_the_groups() -> None:
    """The state of an optimizer does not count, although its keys are parameters."""
    values = list(net().parameters())
    for value in values:
        value.grad = torch.ones_like(value)
    assert kept_elsewhere(Kept(values, 0.1)) == 'inner'
    for optimizer in (Around(values, 0.1), torch.optim.AdamW(values), torch.optim.LBFGS(values)):
        assert kept_elsewhere(optimizer) is None
        optimizer.step(lambda: torch.zeros(()))
        assert kept_elsewhere(optimizer) is None


def test_what_never_ran_is_not_folded_in() -> None:
    """A module with some used numbers stays as it is."""
    model = nn.ModuleDict(dict(used=nn.Linear(3, 3), spare=nn.Linear(3, 3)))
    spare, used = model['spare'].weight.clone(), model['used'].weight.clone()
    SSF().inject(model)
    scale = model['used'].ssf.scale.clone()
    neutralize_unused(model, ['used.ssf.scale', 'spare.ssf.scale', 'spare.ssf.shift'])
    assert torch.equal(model['used'].ssf.scale, scale)
    merge_operations(model)
    assert torch.equal(model['spare'].weight, spare)
    assert not torch.equal(model['used'].weight, used)
