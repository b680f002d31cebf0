"""Shipped schedules reach their learning rate for any number of images."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, PARAM_SCHEDULERS
from tiny import tiny_config, train

from mmgps.engine import WarmUpCosineLR

ROOT = Path(__file__).resolve().parents[3] / 'configs'
LEAVES = (
    'polyp/gps_deit-tiny_kvasir.py',
    'benchmark/vit-b16_kvasir.py',
    'classification/deit-tiny_flowers17.py',
    'sam/gps_sam-vit-b_kvasir-1024.py',
    'classification/fgvc/vit-b16_cub.py',
    'classification/vtab/vit-b16_dtd.py',
)


@HOOKS.register_module(force=True)
class RatesOfTest(Hook):
    """Record the learning rate of every iteration."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        self.rates.append(runner.optim_wrapper.get_lr()['lr'][0])


def built(configs: Any, epoch_length: int, epochs: int, rate: float) -> tuple[torch.optim.Optimizer, list[Any]]:
    """Build schedulers like mmengine's runner."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=rate)
    found = []
    for config in configs:
        config = {**config, 'end': config.get('end', epochs)}
        found.append(PARAM_SCHEDULERS.build(config, default_args=dict(optimizer=optimizer, epoch_length=epoch_length)))
    return optimizer, found


def rates_of(configs: Any, epoch_length: int, epochs: int, rate: float) -> list[float]:
    """Learning rate of every iteration of a run."""
    optimizer, schedulers = built(configs, epoch_length, epochs, rate)
    rates = []
    for iteration in range(epochs * epoch_length):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        ends_epoch = (iteration + 1) % epoch_length == 0
        for scheduler in schedulers:
            if ends_epoch or not scheduler.by_epoch:
                scheduler.step()
    return rates


@pytest.mark.parametrize('leaf', LEAVES)
def test_every_number_of_images_reaches_the_rate_of_the_config(leaf: str) -> None:
    cfg = Config.fromfile(ROOT / leaf)
    epochs, batch, rate = cfg.train_cfg.max_epochs, cfg.train_dataloader.batch_size, cfg.optim_wrapper.optimizer.lr
    for length in sorted({math.ceil(images / batch) for images in range(1, 201)}):
        rates = rates_of(cfg.param_scheduler, length, epochs, rate)
        assert max(rates) == pytest.approx(rate, rel=1e-6), length
        warm_up = rates.index(max(rates))
        assert warm_up <= len(rates) / 10, length
        assert rates[-1] < 0.9 * rate, length


@pytest.mark.parametrize('images', [5, 8, 16, 30, 32, 33])
def test_a_run_on_few_images_reaches_the_rate(images: int, tmp_path: Path) -> None:
    """Before, 30 and 32 images never left the warm-up, and 16 ended with an error."""
    schedule = Config.fromfile(ROOT / '_base_/schedules/kvasir_8e.py')
    cfg = tiny_config(tmp_path, param_scheduler=[each.to_dict() for each in schedule.param_scheduler])
    cfg.train_dataloader.update(batch_size=8, sampler=dict(type='DefaultSampler', shuffle=True))
    cfg.train_dataloader.dataset.count = images
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=8)
    cfg.custom_hooks = [*cfg.custom_hooks, dict(type='RatesOfTest')]
    runner = train(cfg)
    [rates] = [hook.rates for hook in runner.hooks if isinstance(hook, RatesOfTest)]
    assert len(rates) == 8 * math.ceil(images / 8)
    assert max(rates) == pytest.approx(1e-2)
    assert rates[-1] < 4e-3


@pytest.mark.parametrize(('length', 'warm_up'), [(110, 50), (14, 11), (2, 1), (1, 0)])
def test_it_is_the_linear_and_the_cosine_schedule_of_mmengine(length: int, warm_up: int) -> None:
    own = dict(type='mmgps.WarmUpCosineLR', warm_up=50, start_factor=0.02, eta_min=1e-4, convert_to_iter_based=True)
    total = 8 * length
    pair = [dict(type='CosineAnnealingLR', eta_min=1e-4, by_epoch=False, begin=warm_up, end=total)]
    if warm_up > 1:
        pair.insert(0, dict(type='LinearLR', start_factor=0.02, by_epoch=False, begin=0, end=warm_up))
    expected = rates_of(pair, length, 8, 0.01)
    if warm_up == 1:
        expected[0] = 2e-4
    assert rates_of([own], length, 8, 0.01) == pytest.approx(expected, rel=1e-9)


def test_a_loop_by_iteration_names_its_end() -> None:
    own = dict(type='mmgps.WarmUpCosineLR', warm_up=50, by_epoch=False, end=100)
    rates = rates_of([own], 1, 100, 1.0)
    assert (rates[0], rates[9], max(rates)) == pytest.approx((0.02, 1.0, 1.0))
    assert rates.index(max(rates)) in (9, 10)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(warm_up=-1), 'warm_up must be at least 0'),
        (dict(start_factor=0.0), 'start_factor in'),
        (dict(at_most=1.0), 'at_most in'),
        (dict(by_epoch=True), 'set convert_to_iter_based=True'),
    ],
)
def test_wrong_settings(options: dict, message: str) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    with pytest.raises(ValueError, match=message):
        WarmUpCosineLR(optimizer, end=10, **options)
