"""The table of scores before and after training."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS
from tiny import PIPELINE, tiny_config, train

from mmgps.engine.hooks.before_after_hook import scalars
from mmgps.utils.requirements import require

require('mmseg')


@METRICS.register_module(force=True)
class Calls(BaseMetric):
    """Metric that counts the evaluations."""

    count = 0

    def process(self, data_batch, data_samples) -> None:
        self.results.extend(data_samples)

    def compute_metrics(self, results) -> dict:
        Calls.count += 1
        return {'calls': Calls.count, 'images': len(results), 'by class': [1.0, 2.0], 'worst': 'a.png', 'none': None}


@pytest.fixture
def config(tmp_path: Path):
    def make(name: str, **changes):
        Calls.count = 0
        data = dict(type='TinyPictures', count=3, pipeline=PIPELINE[::2])
        return tiny_config(
            tmp_path / name,
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=4, val_interval=2),
            val_cfg=dict(),
            val_dataloader=dict(batch_size=2, sampler=dict(type='DefaultSampler', shuffle=False), dataset=data),
            val_evaluator=dict(type='Calls'),
            log_level='INFO',
            **changes,
        )

    return make


def test_a_config_without_validation_is_refused_before_selecting(tmp_path: Path) -> None:
    cfg = tiny_config(tmp_path, custom_hooks=HOOKS)
    with pytest.raises(ValueError, match='BeforeAfterHook compares validations and the config has none: set val_data'):
        train(cfg)
    assert not (tmp_path / 'selection.safetensors').exists()


def test_numbers_among_metrics() -> None:
    numbers = dict(a=1, b=2.5, c=np.float32(3), d=torch.tensor(4.0), e=np.array(5), f=True, g=float('inf'))
    others = dict(h=[1.0], i='text', j=None, k=np.ones(2), l=torch.ones(1), m={}, n=object())
    assert scalars({**numbers, **others}) == {name: float(value) for name, value in numbers.items()}


HOOKS = [dict(type='mmgps.GPSHook'), dict(type='mmgps.ExactResumeHook'), dict(type='mmgps.BeforeAfterHook')]


def table(work_dir: Path) -> list[list[str]]:
    log = max(work_dir.glob('*/*.log')).read_text()
    lines = log.split('validation set, before and after training\n')[1].splitlines()
    return [line.split() for line in lines[:3]]


def test_the_first_and_the_last_evaluation(config, tmp_path: Path) -> None:
    train(config('run', custom_hooks=HOOKS))
    assert table(tmp_path / 'run') == [
        ['score', 'before', 'after'],
        ['calls', '1.00', '3.00'],
        ['images', '3.00', '3.00'],
    ]


def test_resumed(config, tmp_path: Path) -> None:
    cfg = config('run', custom_hooks=HOOKS)
    train(cfg)
    cfg.resume, cfg.load_from, cfg.work_dir = True, str(tmp_path / 'run/iter_2.pth'), str(tmp_path / 'resumed')
    cfg.experiment_name += '-resumed'
    Calls.count = 10
    train(cfg)
    assert table(tmp_path / 'resumed')[1] == ['calls', '1.00', '11.00']


def test_resumed_from_a_checkpoint_that_knows_no_scores_before(config, tmp_path: Path) -> None:
    train(config('run', custom_hooks=HOOKS[:2]))
    cfg = config('resumed', custom_hooks=HOOKS, resume=True, load_from=str(tmp_path / 'run/iter_2.pth'))
    train(cfg)
    assert table(tmp_path / 'resumed')[1] == ['calls', '-', '1.00']
