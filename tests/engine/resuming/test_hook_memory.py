"""A resumed run restores the memory of hooks and repeats the validation after its checkpoint."""

import copy
from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from resuming import PLATEAU, SCORES, by_epochs, log_of, rates, resume, validated
from tiny import Stop, assert_same_bits, state_of, train

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
    """Hook of a user that scales a weight by earlier iterations, remembered in numbers, lists and tensors."""

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
    Run.hooks[0].counted = 1
    for hook in Run.hooks:
        hook.moved = 1
    assert list(memory.pack(Run)) == ['Adapting', 'Adapting number 2']


def remembered(work_dir: Path, before: Any, after: Any) -> Any:
    """Restored attribute of a hook that was ``before`` when training began and ``after`` at the checkpoint."""
    first, second = Adapting(), Adapting()
    memory = HookMemory()
    first.thing, second.thing = copy.deepcopy(before), copy.deepcopy(before)
    memory.begin(SimpleNamespace(hooks=[first]))
    if isinstance(before, dict | list | set | deque | torch.Tensor | np.ndarray) and type(before) is type(after):
        fill(first.thing, after)  # in place
    else:
        first.thing = after
    torch.save(memory.pack(SimpleNamespace(hooks=[first])), work_dir / 'memory.pth')
    packed = torch.load(work_dir / 'memory.pth', weights_only=True)
    HookMemory().restore(SimpleNamespace(hooks=[second]), packed)
    return second.thing


def fill(kept: Any, found: Any) -> None:
    if isinstance(kept, torch.Tensor | np.ndarray):
        kept[...] = found
        return
    kept.clear()
    kept.extend(found) if isinstance(kept, list | deque) else kept.update(found)


KEPT: list[tuple[Any, Any]] = [
    (0, np.float32(0.1)),
    (np.int64(1), np.int64(2)),
    (np.zeros(2), np.ones(2)),
    (None, np.ones((2, 3), np.float32)),
    (torch.zeros(2), torch.ones(2)),
    ({}, {'a': 1.0, 2: [torch.ones(1), (1, 'b')]}),
    ({'a': 1}, {'a': 2}),
    ([1, 2], [1, 3]),
    (set(), {1, 3}),
    (None, {2}),
    (deque(maxlen=2), deque([1, 2], 2)),
    (None, deque([1.5], 3)),
    ((), ('a', 1)),
]


@pytest.mark.parametrize(('before', 'after'), KEPT, ids=str)
def test_what_is_remembered_comes_back_as_it_was(before: Any, after: Any, tmp_path: Path) -> None:
    found = remembered(tmp_path, before, after)
    if isinstance(after, np.generic):
        assert found == after.item()
        return
    assert type(found) is type(after)
    assert len(found) == len(after)
    if isinstance(after, torch.Tensor | np.ndarray):
        assert found.dtype == after.dtype
        assert (found == after).all()
    else:
        assert repr(found) == repr(after)
    if isinstance(after, deque):
        assert found.maxlen == after.maxlen


@pytest.mark.parametrize(
    'after',
    [{'a': deque([1], 3)}, [{1}], ({'b': np.ones(2)},), [object()], {'c': len}],
    ids=['deque in dict', 'set in list', 'array in dict', 'object', 'function'],
)
def test_what_would_come_back_as_something_else_is_refused(after: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='Adapting had changed thing'):
        remembered(tmp_path, None, after)


def test_what_is_packed_is_that_of_the_moment() -> None:
    hook, memory = Adapting(), HookMemory()
    run = SimpleNamespace(hooks=[hook])
    hook.thing = np.zeros(2)
    memory.begin(run)
    hook.mean += 1
    hook.thing += 1
    hook.last.append(1)
    found = memory.pack(run)['Adapting']['values']
    memory.hold(run)
    hook.mean += 1
    hook.thing += 1
    hook.last.append(2)
    for values in (found, memory.pack(run)['Adapting']['values']):
        assert (values['mean'].tolist(), values['thing'].tolist(), values['last']) == ([1, 1], [1, 1], [1])
    memory.release()
    assert memory.pack(run)['Adapting']['values']['mean'].tolist() == [2, 2]


def test_a_killed_validation_is_made_up(tmp_path: Path) -> None:
    """The run is killed between the checkpoint and the end of its validation."""

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
