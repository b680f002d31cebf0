"""What hooks remember, and the validation after a checkpoint, in a resumed run."""

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from resuming import PLATEAU, SCORES, by_epochs, log_of, rates, resume, validated
from stopping import Stop
from tiny import assert_same_bits, state_of, train

from mmgps.engine.resuming.hook_memory import HookMemory


@pytest.mark.parametrize('epoch', [1, 3, 4])
def test_early_stopping_remembers(epoch: int, tmp_path: Path) -> None:
    def config(name: str) -> Config:
        cfg = validated(by_epochs(tmp_path / name, 9), SCORES)
        stopping = dict(type='EarlyStoppingHook', monitor='score', rule='greater', min_delta=0.01, patience=3)
        cfg.custom_hooks = [*cfg.custom_hooks, stopping]
        return cfg

    whole = train(config('whole'))
    assert whole.epoch == 5
    resumed = resume(config('resumed'), tmp_path / f'whole/epoch_{epoch}.pth')
    assert resumed.epoch == 5
    assert_same_bits(state_of(resumed), state_of(whole))
    again = resume(config('again'), tmp_path / 'whole/epoch_5.pth')
    assert again.epoch == 5
    assert 'stopped early, at epoch 5 of 9' in log_of(again)


@HOOKS.register_module(force=True)
class Adapting(Hook):
    """A user's own: scales a weight by what it has seen, which it keeps in numbers, lists and tensors."""

    def __init__(self, lost: str = '') -> None:
        self.lost, self.total, self.last, self.mean = lost, 0.0, [], torch.zeros(2)
        self.thing: object = None
        self.switched = False

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.total += float(outputs['loss'].detach())
        self.last = [*self.last, round(self.total, 3)][-3:]
        self.mean.mul_(0.9).add_(self.total)
        with torch.no_grad():
            runner.model.decode_head.conv_seg.bias.add_(1e-3 * self.mean * sum(self.last))
        if self.lost:
            setattr(self, self.lost, dict(thing=object(), switched=True)[self.lost])


def adapting(work_dir: Path, **options: Any) -> Config:
    cfg = by_epochs(work_dir)
    cfg.custom_hooks = [*cfg.custom_hooks, dict(type='Adapting', **options)]
    return cfg


def test_a_hook_of_ones_own_remembers(tmp_path: Path) -> None:
    whole = train(adapting(tmp_path / 'whole'))
    resumed = resume(adapting(tmp_path / 'resumed'), tmp_path / 'whole/epoch_2.pth')
    assert_same_bits(state_of(resumed), state_of(whole))
    twice = resume(adapting(tmp_path / 'twice'), tmp_path / 'resumed/epoch_3.pth')
    assert_same_bits(state_of(twice), state_of(whole))


@pytest.mark.parametrize('lost', ['thing', 'switched'])
def test_a_hook_that_remembers_what_cannot_be_restored_is_refused_unless_exempt(lost: str, tmp_path: Path) -> None:
    train(adapting(tmp_path / 'whole', lost=lost))
    with pytest.raises(ValueError, match=rf'Adapting had changed {lost} .*exempt='):
        resume(adapting(tmp_path / 'refused', lost=lost), tmp_path / 'whole/epoch_2.pth')
    cfg = adapting(tmp_path / 'exempt', lost=lost)
    cfg.custom_hooks[1].exempt = ['Adapting']
    assert resume(cfg, tmp_path / 'whole/epoch_2.pth').epoch == 4


def test_a_hook_that_saves_itself_and_those_of_mmengine_need_no_help() -> None:
    class Keeping(Hook):
        def before_save_checkpoint(self, runner, checkpoint) -> None: ...
        def after_load_checkpoint(self, runner, checkpoint) -> None: ...

    class Run:
        hooks = (Keeping(), HOOKS.build(dict(type='IterTimerHook')), Adapting(), Adapting())

    memory = HookMemory()
    memory.begin(Run)
    assert memory.pack(Run) == {}
    for hook in Run.hooks:
        hook.moved = 1
    assert list(memory.pack(Run)) == ['Adapting', 'Adapting number 2']


def test_a_killed_validation_is_made_up(tmp_path: Path) -> None:
    """Killed between the checkpoint and the end of its validation."""

    @HOOKS.register_module(force=True)
    class StopInValidation(Hook):
        def before_val_epoch(self, runner) -> None:
            if runner.epoch == 2:
                raise Stop

    def config(name: str, *more: dict) -> Config:
        cfg = validated(by_epochs(tmp_path / name, 6, param_scheduler=[PLATEAU]), SCORES)
        cfg.custom_hooks = [*cfg.custom_hooks, *more]
        return cfg

    with pytest.raises(Stop):
        train(config('cut', dict(type='StopInValidation')))
    resumed = resume(config('resumed'), tmp_path / 'cut/epoch_2.pth')
    assert rates(resumed) == rates(train(config('whole')))[8:]
