"""Optimizers that compact training cannot follow."""

from pathlib import Path

import pytest
import torch
from mmengine.optim import OptimWrapperDict
from mmengine.registry import OPTIMIZERS
from mmengine.runner import Runner
from tiny import plain_config
from torch import nn

from mmgps.engine import GPSOptimWrapper
from mmgps.engine.optim import take_over
from mmgps.selection import RandomScore
from mmgps.tuned import Tuned
from mmgps.tuning import GPS


@pytest.mark.parametrize(
    ('kind', 'message'),
    [
        ('mmpretrain.LARS', r'LARS is not known to step each number by itself.*mmgps\.MaskedTraining'),
        ('mmpretrain.Lamb', r'Lamb is not known to step each number by itself.*mmgps\.MaskedTraining'),
        ('Muon', r'Muon is not known to step each number by itself.*mmgps\.MaskedTraining'),
        ('TorchAdafactor', r'Adafactor is not known to step each number by itself.*mmgps\.MaskedTraining'),
        ('LBFGS', 'LBFGS computes the loss again within its step'),
    ],
)
def test_optimizers_that_compact_training_cannot_follow_are_refused(kind: str, message: str, tmp_path: Path) -> None:
    if 'mmpretrain' in kind:
        pytest.importorskip('mmpretrain')
    OPTIMIZERS.register_module('TorchAdafactor', module=torch.optim.Adafactor, force=True)
    optimizer = dict(type='SGD' if kind == 'Muon' else kind, lr=0.01)
    wrapper = dict(type='OptimWrapper', optimizer=optimizer)
    cfg = plain_config(tmp_path, optim_wrapper=wrapper, param_scheduler=None, max_iters=1)
    runner = Runner.from_cfg(cfg)
    if kind == 'Muon':  # accepts only matrices
        matrices = [value for value in runner.model.backbone.parameters() if value.dim() == 2]
        runner.optim_wrapper = GPSOptimWrapper(torch.optim.Muon(matrices))
    with pytest.raises(ValueError, match=message):
        runner.train()


def test_an_optimizer_of_the_head_alone_may_weigh_whole_tensors() -> None:
    model = nn.ModuleDict(dict(backbone=nn.Linear(6, 4), head=nn.Linear(4, 2)))
    selection = GPS(1, score=RandomScore()).select(model.backbone)
    tuned = Tuned(model, selection, GPS(1))
    parts = (torch.optim.AdamW(model.backbone.parameters()), torch.optim.Adafactor(model.head.parameters()))
    wrappers = OptimWrapperDict(**{name: GPSOptimWrapper(part) for name, part in zip('ab', parts, strict=True)})
    take_over(wrappers, tuned)
    with pytest.raises(ValueError, match='Adafactor'):
        take_over(GPSOptimWrapper(torch.optim.Adafactor(model.backbone.parameters())), tuned)
