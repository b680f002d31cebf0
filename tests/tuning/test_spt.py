"""SPT: the sums of the pass, the use of the budget, and the trained numbers."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip('mmpretrain')

from architectures import build
from torch import nn
from training_pair import assert_equal_training
from tuned import Tuned, Whole

from mmgps.selection import SelectionMismatchError, SquaredGradientSum, describe, sum_gradients
from mmgps.tuning import SPTAdapter, SPTLoRA


def sensitivities(method: SPTLoRA | SPTAdapter, backbone: nn.Module) -> dict[str, torch.Tensor]:
    model = Whole(backbone)
    values = {name: entry.value for name, entry in method.candidates(backbone).items()}
    return sum_gradients(model, values, [1, 2, 3], model, None, SquaredGradientSum())


@pytest.mark.parametrize('scale', [None, 256.0])
def test_the_pass_sums_the_squares_of_each_batch(scale: float | None) -> None:
    backbone = build('vit').double()
    model, method = Whole(backbone), SPTLoRA()
    values = {name: entry.value for name, entry in method.candidates(backbone).items()}
    found = sum_gradients(model, values, [1, 2, 3], model, scale, SquaredGradientSum())
    for name, value in values.items():
        expected = sum(torch.autograd.grad(model(step), value)[0].square() for step in (1, 2, 3))
        torch.testing.assert_close(found[name], expected, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize('kind', [SPTLoRA, SPTAdapter])
@pytest.mark.parametrize('budget', [0.02, 0.2, 900])
def test_what_the_budget_buys(kind: type, budget: float) -> None:
    """Compare with one sort over all connections of the network."""
    backbone = build('mmpretrain-vit')
    method = kind(budget=budget, rank=2)
    scores = sensitivities(method, backbone)
    selection = method.select(backbone, scores)
    every = torch.cat([value.flatten() for value in scores.values()])
    count = round(budget * len(every)) if budget < 1 else budget
    bound = every.sort(descending=True).values[count - 1]
    injected = {name.rpartition('.')[0].rpartition('.')[0] for name in selection.whole}
    trained = 0
    for name, value in scores.items():
        path, among = name.removesuffix('.weight'), int((value >= bound).sum())
        outputs, inputs = value.shape[0], value[0].numel()
        cost = 2 * (outputs + inputs) if kind is SPTLoRA else 2 * 2 * outputs + outputs + 2
        assert (path in injected) == (among >= cost), name
        if path in injected:
            assert name not in selection.connections
            trained += cost
        elif among:
            assert torch.equal(selection.connections[name].positions, (value >= bound).flatten().nonzero().flatten())
            trained += among
    assert 0 < trained <= count


def test_sparse_entries_beside_factors_train_as_with_masks() -> None:
    """This includes an attention that computes all its projections itself."""
    name = 'layers.{}.attn.attn.{}'
    whole = [name.format(0, 'in_proj_weight'), name.format(1, 'out_proj.weight')]
    single = [name.format(0, 'out_proj.weight'), name.format(1, 'in_proj_weight'), 'layers.0.ffn.layers.1.weight']
    for kind in (SPTLoRA, SPTAdapter):
        backbone = build('vit').double()
        scores = {n: torch.zeros_like(v) for n, v in backbone.named_parameters() if n in kind().candidates(backbone)}
        for path in whole:
            scores[path][:] = 1
        for path in single:
            scores[path][::3, 2] = 1
        method = kind(budget=int(sum(value.sum() for value in scores.values())), rank=2)
        selection = method.select(backbone, scores)
        assert set(selection.connections) == set(single)
        run = Tuned(backbone, method, selection)
        for path, value in backbone.named_parameters():
            if path in selection.whole:
                nn.init.normal_(value, std=0.1)
        assert_equal_training(run.model.backbone, selection, lambda net, step: Whole(net)(step), steps=6)


def test_new_parameters_join_the_group_of_their_layer() -> None:
    backbone = build('vit')
    model = Whole(backbone)
    method = SPTLoRA(budget=0.3, rank=2)
    selection = method.select(backbone, sensitivities(method, backbone))
    added = method.inject_selected(backbone, selection)
    names = {id(value): name for name, value in model.named_parameters()}
    assert {names[id(v)] for new in added.values() for v in new} == {f'backbone.{name}' for name in selection.whole}
    for weight, new in added.items():
        owner = names[id(weight)].rpartition('.')[0]
        assert all(names[id(value)].startswith(owner) for value in new)


def test_a_selection_for_another_network_is_refused() -> None:
    backbone = build('vit')
    method = SPTLoRA(budget=0.3, rank=2)
    selection = method.select(backbone, sensitivities(method, backbone))
    with pytest.raises(SelectionMismatchError, match=r'the selection trains .*lora.*, for which ResNet has no layer'):
        method.inject_selected(build('resnet'), selection)


@pytest.mark.parametrize('budget', [0, -3])
def test_budget(budget: float) -> None:
    with pytest.raises(ValueError, match=f'above 0, .*; got {budget}'):
        SPTLoRA(budget=budget)


def test_nothing_of_the_base_is_trained_in_full() -> None:
    backbone = build('swin')
    method = SPTLoRA(budget=0.1, rank=2)
    selection = method.select(backbone, sensitivities(method, backbone))
    assert not set(selection.whole) & set(describe(backbone))
