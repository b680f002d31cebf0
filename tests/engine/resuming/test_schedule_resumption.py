"""The schedule of a run that resumes under another schedule."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import _ParamScheduler
from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmengine.registry import PARAM_SCHEDULERS
from resuming import (
    PLATEAU,
    SCORES,
    by_epochs,
    by_iterations,
    in_parts,
    log_of,
    rates,
    resume,
    train_four_epochs,
    validated,
)
from tiny import assert_same_bits, state_of, train

from mmgps.engine.resuming.schedules import ResumeError


@pytest.fixture(scope='module')
def four_epochs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_four_epochs(tmp_path_factory.mktemp('four'))


SCHEDULES: dict[str, Callable[[int], Any]] = {
    'in parts': in_parts,
    'by epoch': lambda length: dict(type='CosineAnnealingLR', T_max=length, end=length),
    'steps': lambda length: dict(type='MultiStepLR', milestones=[length // 2, length - 1]),
    'of mmgps': lambda length: dict(type='mmgps.WarmUpCosineLR', warm_up=3, convert_to_iter_based=True),
    'two at once': lambda length: [dict(type='ExponentialLR', gamma=0.9), *in_parts(length)],
    'momentum': lambda length: [dict(type='CosineAnnealingMomentum', T_max=length), *in_parts(length)],
    'one cycle': lambda length: dict(type='OneCycleLR', eta_max=0.02, total_steps=4 * length, by_epoch=False),
}


@pytest.mark.parametrize('kind', SCHEDULES)
def test_a_finished_run_follows_a_longer_schedule(kind: str, tmp_path: Path) -> None:
    def config(name: str, epochs: int) -> Config:
        return by_epochs(tmp_path / name, epochs, param_scheduler=SCHEDULES[kind](epochs))

    train(config('first', 2))
    resumed = resume(config('resumed', 5), tmp_path / 'first/epoch_2.pth')
    whole = train(config('whole', 5))
    assert rates(resumed) == rates(whole)[8:]
    groups = [[{**group, 'params': 0} for group in run.optim_wrapper.param_groups] for run in (resumed, whole)]
    assert groups[0] == groups[1]
    assert 'resuming under other settings' in log_of(resumed)


@pytest.mark.parametrize(('before', 'now'), [('in parts', None), (None, 'in parts'), ('momentum', 'by epoch')])
def test_another_kind_of_schedule_is_followed(before: str | None, now: str | None, tmp_path: Path) -> None:
    def config(name: str, kind: str | None) -> Config:
        return by_epochs(tmp_path / name, param_scheduler=SCHEDULES[kind](4) if kind else None)

    train(config('first', before))
    resumed = resume(config('resumed', now), tmp_path / 'first/epoch_2.pth')
    whole = train(config('whole', now))
    assert rates(resumed) == rates(whole)[8:]
    assert [group['betas'] for group in resumed.optim_wrapper.optimizer.param_groups] == [(0.9, 0.999)]
    assert 'schedulers: [' in log_of(resumed)


def test_a_finished_loop_by_iteration_follows_a_longer_schedule(tmp_path: Path) -> None:
    train(by_iterations(tmp_path / 'first', 4))
    resumed = resume(by_iterations(tmp_path / 'resumed', 10), tmp_path / 'first/iter_4.pth')
    assert rates(resumed) == rates(train(by_iterations(tmp_path / 'whole', 10)))[4:]
    assert 'T_max: 4 -> 10' in log_of(resumed)


def test_a_longer_run_under_the_schedule_of_before_says_what_to_set(tmp_path: Path) -> None:
    schedule = SCHEDULES['in parts'](2)
    train(by_epochs(tmp_path / 'first', 2, param_scheduler=schedule))
    resumed = resume(by_epochs(tmp_path / 'resumed', 3, param_scheduler=schedule), tmp_path / 'first/epoch_2.pth')
    assert 'longer, 2 -> 3 epochs' in (log := log_of(resumed))
    assert 'set end (and T_max) of param_scheduler to 3' in log


def test_a_checkpoint_without_its_schedulers_follows_the_config(tmp_path: Path) -> None:
    def config(name: str) -> Config:
        cfg = by_epochs(tmp_path / name, param_scheduler=in_parts(4))
        cfg.default_hooks.checkpoint.save_param_scheduler = False
        return cfg

    whole = train(config('whole'))
    resumed = resume(config('resumed'), tmp_path / 'whole/epoch_2.pth')
    assert rates(resumed) == rates(whole)[8:]
    assert 'schedulers in the checkpoint: 0, in the config: 2; followed' in log_of(resumed)


def test_another_rate_and_decay_are_followed(tmp_path: Path) -> None:
    def config(name: str, **optimizer: Any) -> Config:
        cfg = by_epochs(tmp_path / name, param_scheduler=in_parts(4))
        cfg.optim_wrapper.optimizer.update(optimizer)
        return cfg

    train(config('first'))
    changes = dict(lr=3e-3, weight_decay=0.2)
    resumed = resume(config('resumed', **changes), tmp_path / 'first/epoch_2.pth')
    assert rates(resumed) == rates(train(config('whole', **changes)))[8:]
    assert {group['weight_decay'] for group in resumed.optim_wrapper.optimizer.param_groups} == {0.2}
    assert 'weight_decay of the optimizer: 0.05 -> 0.2' in (log := log_of(resumed))
    assert 'initial_lr: 0.01 -> 0.003' in log


def test_a_constant_rate_is_followed(four_epochs: Path, tmp_path: Path) -> None:
    cfg = by_epochs(tmp_path)
    cfg.optim_wrapper.optimizer.lr = 5e-3
    assert set(rates(resume(cfg, four_epochs / 'epoch_2.pth'))) == {5e-3}


@pytest.mark.parametrize(('epoch', 'best'), [(3, False), (4, False), (1, True), (2, True), (5, True)])
def test_a_schedule_by_scores_sees_every_validation_once(epoch: int, best: bool, tmp_path: Path) -> None:
    """mmengine writes a checkpoint before it validates, and again during the validation for the best score."""

    def config(name: str) -> Config:
        cfg = validated(by_epochs(tmp_path / name, 7, param_scheduler=[PLATEAU]), SCORES)
        if best:
            cfg.default_hooks.checkpoint.update(save_best='score', rule='greater')
        return cfg

    whole = train(config('whole'))
    assert len(set(rates(whole))) == 3
    resumed = resume(config('resumed'), tmp_path / f'whole/epoch_{epoch}.pth')
    assert rates(resumed) == rates(whole)[4 * epoch :]
    assert_same_bits(state_of(resumed), state_of(whole))
    if best:
        assert [path.name for path in (tmp_path / 'resumed').glob('best*')] in ([], ['best_score_epoch_2.pth'])


def test_a_schedule_by_scores_is_restored_without_settings(tmp_path: Path) -> None:
    def config(name: str) -> Config:
        return validated(by_epochs(tmp_path / name, 7, param_scheduler=[PLATEAU]), SCORES)

    whole = train(config('whole'))
    checkpoint = torch.load(tmp_path / 'whole/epoch_5.pth', weights_only=True)
    del checkpoint['mmgps_run']
    torch.save(checkpoint, tmp_path / 'old.pth')
    assert rates(resume(config('resumed'), tmp_path / 'old.pth')) == rates(whole)[20:]
    assert rates(whole)[20] < rates(whole)[0]


def test_a_finished_schedule_by_scores_is_longer(tmp_path: Path) -> None:
    def config(name: str, epochs: int) -> Config:
        return validated(by_epochs(tmp_path / name, epochs, param_scheduler=[PLATEAU]), SCORES)

    train(config('first', 4))
    resumed = resume(config('resumed', 7), tmp_path / 'first/epoch_4.pth')
    assert rates(resumed) == rates(train(config('whole', 7)))[16:]


def test_a_schedule_by_scores_cannot_follow_another_rate(tmp_path: Path) -> None:
    def config(name: str) -> Config:
        return validated(by_epochs(tmp_path / name, 3, param_scheduler=[PLATEAU]), SCORES)

    train(config('first'))
    cfg = config('second')
    cfg.optim_wrapper.optimizer.lr = 1e-3
    with pytest.raises(ResumeError, match='ReduceOnPlateauLR remembers the scores so far'):
        resume(cfg, tmp_path / 'first/epoch_2.pth')


@PARAM_SCHEDULERS.register_module(force=True)
class Remembering(LRSchedulerMixin, _ParamScheduler):
    """Scheduler of a user whose rate depends on its own counter."""

    def __init__(self, *args: Any, floor: float = 0.0, **options: Any) -> None:
        self.floor, self.calls = floor, 0
        super().__init__(*args, **options)

    def _get_value(self) -> list[float]:
        self.calls += 1
        return [max(self.floor, base / self.calls) for base in self.base_values]


def test_a_schedule_of_ones_own_that_remembers_is_restored_or_refused(tmp_path: Path) -> None:
    def config(name: str, floor: float = 0.0) -> Config:
        return by_epochs(tmp_path / name, param_scheduler=[dict(type='Remembering', floor=floor)])

    whole = train(config('whole'))
    resumed = resume(config('resumed'), tmp_path / 'whole/epoch_2.pth')
    assert rates(resumed) == rates(whole)[8:]
    with pytest.raises(ResumeError, match=r'Remembering remembers calls.*floor: 0\.0 -> 0\.004'):
        resume(config('refused', 0.004), tmp_path / 'whole/epoch_2.pth')
