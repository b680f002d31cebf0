"""Batches and optimizer wrappers in the loss of the selection pass."""

import torch
from mmengine.optim import OptimWrapper
from tiny import tiny_config, train
from torch import nn

from mmgps.engine.resuming.loaders import rebuild, seeded_loader
from mmgps.engine.selecting.selection_loss import LossCapture, TrainingLoss


class Views(nn.Module):
    """Model that compares two views of each sample."""

    def train_step(self, data, optim_wrapper):
        optim_wrapper.update_params(torch.tensor(2.0))


def test_a_loss_is_weighed_by_samples_and_not_by_views() -> None:
    views = [torch.zeros(5, 3), torch.zeros(5, 3)]
    loss = TrainingLoss(Views(), None)
    assert loss(dict(inputs=views, data_samples=list(range(5)))) == 10
    assert loss(dict(inputs=torch.zeros(3, 2))) == 6
    assert loss(dict(inputs=torch.zeros(3, 2), data_samples=None)) == 6


def test_the_parts_of_a_step_keep_the_loss_and_change_nothing() -> None:
    layer = nn.Linear(2, 1)
    before = layer.weight.clone()
    capture = LossCapture(dict(a=OptimWrapper(torch.optim.SGD(layer.parameters(), lr=1.0))))
    assert capture.loss is None
    part = capture['a']
    with part.optim_context(layer):
        loss = layer(torch.ones(1, 2)).sum()
    part.zero_grad()
    part.backward(part.scale_loss(loss))
    part.update_params(loss, step_kwargs={}, zero_kwargs={})
    part.step()
    assert not part.should_update()
    assert capture.loss == 2 * loss
    assert layer.weight.grad is None
    assert torch.equal(layer.weight, before)


def test_a_seeded_loader_says_its_batch_size(tmp_path) -> None:
    loader = train(tiny_config(tmp_path, max_iters=0, custom_hooks=[])).train_dataloader
    assert seeded_loader(loader, 0, 0).batch_size == rebuild(loader).batch_size == 4
