"""A run that resumes under other settings follows them, or is refused with their names."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATA_SAMPLERS
from resuming import by_epochs, by_iterations, in_parts, log_of, rates, resume, seen, train_four_epochs
from tiny import assert_same_bits, state_of, train
from torch.utils.data import BatchSampler, WeightedRandomSampler

import mmgps.engine.hooks.tune_hook as tune_hook
from mmgps.engine.resuming.run_settings import described
from mmgps.engine.resuming.schedules import ResumeError


@pytest.fixture(scope='module')
def four_epochs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_four_epochs(tmp_path_factory.mktemp('four'))


def read_from(cfg: Config, dataset: dict) -> None:
    cfg.train_dataloader.dataset = dataset


CHANGES: dict[str, tuple[Callable[[Config], Any], str, int]] = {
    'smaller batch': (lambda c: c.train_dataloader.update(batch_size=2), 'batch_size: 4 -> 2', 16),
    'larger batch': (lambda c: c.train_dataloader.update(batch_size=8), 'batch_size: 4 -> 8', 4),
    'fewer images': (lambda c: c.train_dataloader.dataset.update(count=9), '16 samples .* -> 9 samples', 6),
    'drop_last': (lambda c: c.train_dataloader.update(drop_last=True), 'drop_last: False -> True', 8),
    'in order': (
        lambda c: c.train_dataloader.sampler.update(shuffle=False),
        'sampler: .*shuffle=True.* -> .*shuffle=False',
        8,
    ),
    'repeated': (
        lambda c: read_from(c, dict(type='RepeatDataset', times=2, dataset=c.train_dataloader.dataset.to_dict())),
        r'-> 32 samples in RepeatDataset of 16 samples in TinyPictures',
        16,
    ),
    'several parts': (
        lambda c: read_from(
            c,
            dict(type='ConcatDataset', datasets=[{**c.train_dataloader.dataset, 'count': count} for count in (6, 10)]),
        ),
        r'-> 16 samples in ConcatDataset of 6 samples in TinyPictures, 10 samples in TinyPictures',
        8,
    ),
}


@pytest.mark.parametrize('change', CHANGES)
def test_other_data_are_followed_from_the_start_of_an_epoch(change: str, four_epochs: Path, tmp_path: Path) -> None:
    """The rest of the run draws the same samples as a run under the new settings only."""
    edit, message, iterations = CHANGES[change]
    cfg = by_epochs(tmp_path / 'resumed')
    edit(cfg)
    whole = by_epochs(tmp_path / 'whole')
    edit(whole)
    resumed = resume(cfg, four_epochs / 'epoch_2.pth')
    assert len(seen(resumed)) == iterations
    assert seen(resumed) == seen(train(whole))[-iterations:]
    assert resumed.iter == 2 * iterations
    assert re.search(message, log_of(resumed))


@pytest.mark.parametrize('change', CHANGES)
def test_other_data_are_refused_within_an_epoch(change: str, four_epochs: Path, tmp_path: Path) -> None:
    edit, message, _ = CHANGES[change]
    cfg = by_epochs(tmp_path)
    edit(cfg)
    with pytest.raises(ResumeError, match=f'within epoch 2, after 2 of 4 .*{message}.*Set these as they'):
        resume(cfg, four_epochs / 'iter_6.pth')


def test_a_checkpoint_after_the_last_iteration_of_an_epoch_is_at_its_end(four_epochs: Path, tmp_path: Path) -> None:
    """mmengine records in such a checkpoint that the epoch has not ended."""
    assert torch.load(four_epochs / 'iter_12.pth', weights_only=True)['meta']['epoch'] == 2
    resumed = resume(by_epochs(tmp_path / 'resumed', batch=2), four_epochs / 'iter_12.pth')
    assert seen(resumed) == seen(train(by_epochs(tmp_path / 'whole', batch=2)))[-8:]
    assert resumed.iter == 32


def test_another_number_of_processes_is_followed_or_refused(four_epochs: Path, tmp_path: Path) -> None:
    """The checkpoints are edited to those of two processes."""
    for name in ('epoch_2', 'iter_6'):
        checkpoint = torch.load(four_epochs / f'{name}.pth', weights_only=True)
        checkpoint['mmgps_run']['data'].update({'processes': 2, 'iterations of an epoch': 2})
        checkpoint['mmgps_run']['epoch_length'] = 2
        checkpoint['meta']['iter'] = dict(epoch_2=4, iter_6=3)[name]
        torch.save(checkpoint, tmp_path / f'{name}.pth')
    with pytest.raises(ResumeError, match='processes: 2 -> 1'):
        resume(by_epochs(tmp_path / 'a'), tmp_path / 'iter_6.pth')
    runner = resume(by_epochs(tmp_path / 'b'), tmp_path / 'epoch_2.pth')
    assert (runner.iter, len(seen(runner))) == (16, 8)
    assert 'processes: 2 -> 1' in log_of(runner)


@pytest.mark.parametrize('sampler', ['InfiniteSampler', 'DefaultSampler'])
def test_a_loop_by_iteration_follows_another_batch_size(
    sampler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('time.sleep', lambda seconds: None)

    def config(name: str, batch: int) -> Config:
        cfg = by_iterations(tmp_path / name, 6)
        cfg.train_dataloader.update(batch_size=batch, sampler=dict(type=sampler, shuffle=True))
        return cfg

    train(config('first', 4))
    resumed = resume(config('resumed', 6), tmp_path / 'first/iter_4.pth')
    assert [iteration for iteration, *_ in seen(resumed)] == [4, 5]
    assert seen(resumed) == seen(train(config('whole', 6)))[4:]
    assert 'batch_size: 4 -> 6' in log_of(resumed)


def test_a_finished_run_says_that_nothing_is_left(four_epochs: Path, tmp_path: Path) -> None:
    resumed = resume(by_epochs(tmp_path), four_epochs / 'epoch_4.pth')
    assert seen(resumed) == []
    assert 'nothing left to do: the checkpoint is that of epoch 4 of 4' in log_of(resumed)
    assert 'set train_cfg.max_epochs above 4' in log_of(resumed)


def test_the_same_settings_are_nothing_to_say(four_epochs: Path, tmp_path: Path) -> None:
    assert 'other settings' not in log_of(resume(by_epochs(tmp_path), four_epochs / 'epoch_2.pth'))


@pytest.mark.parametrize(
    ('edit', 'message'),
    [
        (
            lambda c: setattr(c, 'train_cfg', dict(type='IterBasedTrainLoop', max_iters=12)),
            'counts epochs, train_cfg counts iterations',
        ),
        (
            lambda c: c.optim_wrapper.update(optimizer=dict(type='SGD', lr=0.1)),
            'trained by AdamW, the config asks for SGD',
        ),
        (
            lambda c: c.optim_wrapper.update(paramwise_cfg=dict(norm_decay_mult=0.0)),
            r'of the checkpoint has \[1\] parameter groups',
        ),
        (
            lambda c: c.optim_wrapper.update(accumulative_counts=3),
            r'counts=3 would have summed 2 at iteration 8',
        ),
    ],
)
def test_what_cannot_be_followed_is_refused(edit: Any, message: str, four_epochs: Path, tmp_path: Path) -> None:
    cfg = by_epochs(tmp_path)
    edit(cfg)
    with pytest.raises(ResumeError, match=f'{message}.*start anew from its weights with load_from'):
        resume(cfg, four_epochs / 'epoch_2.pth')


def test_other_accumulation_is_followed_where_nothing_is_pending(four_epochs: Path, tmp_path: Path) -> None:
    cfg = by_epochs(tmp_path)
    cfg.optim_wrapper.accumulative_counts = 2
    resumed = resume(cfg, four_epochs / 'epoch_2.pth')
    assert resumed.iter == 16
    assert 'accumulative_counts: [1] -> [2]' in log_of(resumed)


def test_a_finished_accumulation_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    """The last step of 6 iterations used 2 of 4 gradients; a longer run would not step there."""
    wrapper = dict(type='mmgps.GPSOptimWrapper', optimizer=dict(type='AdamW', lr=1e-2), accumulative_counts=4)
    train(by_iterations(tmp_path / 'first', 6, optim_wrapper=wrapper))
    with pytest.raises(ResumeError, match=r'summed 0 of 4 at iteration 6.*would have summed 2 at iteration 6'):
        resume(by_iterations(tmp_path / 'longer', 12, optim_wrapper=wrapper), tmp_path / 'first/iter_6.pth')


def test_an_accumulation_by_another_count_is_refused_though_as_many_are_summed(tmp_path: Path) -> None:
    """The checkpoint sums gradients divided by three; the rest would be divided by six."""

    def config(name: str, count: int) -> Config:
        cfg = by_epochs(tmp_path / name)
        cfg.optim_wrapper.accumulative_counts = count
        return cfg

    first = config('first', 3)
    first.train_cfg.max_epochs = 4
    train(first)
    with pytest.raises(ResumeError, match=r'summed 2 of 3 at iteration 8, .*counts=6 would have summed 2 at'):
        resume(config('second', 6), tmp_path / 'first/epoch_2.pth')


def test_a_schedule_by_iteration_goes_with_the_iteration(tmp_path: Path) -> None:
    """With half the batch its settings are equal, but the iteration of the checkpoint has another number."""

    def config(name: str, batch: int) -> Config:
        schedule = dict(type='CosineAnnealingLR', T_max=40, end=40, by_epoch=False)
        return by_epochs(tmp_path / name, batch=batch, param_scheduler=[schedule])

    train(config('first', 4))
    resumed = resume(config('resumed', 2), tmp_path / 'first/epoch_2.pth')
    assert rates(resumed) == rates(train(config('whole', 2)))[16:]


def test_a_checkpoint_without_the_optimizer_is_refused(tmp_path: Path) -> None:
    cfg = by_epochs(tmp_path / 'first', 2)
    cfg.default_hooks.checkpoint.save_optimizer = False
    train(cfg)
    with pytest.raises(ResumeError, match='no state of the optimizer, as with save_optimizer=False'):
        resume(by_epochs(tmp_path / 'second'), tmp_path / 'first/epoch_2.pth')


@pytest.mark.parametrize('missing', ['all', 'groups'])
def test_a_checkpoint_without_settings_follows_the_schedule_and_refuses_other_batches(
    missing: str, tmp_path: Path
) -> None:
    """Checkpoints of an earlier release, or of a run without the hook, have no settings."""
    train(by_epochs(tmp_path / 'first', 2, param_scheduler=in_parts(2)))
    checkpoint = torch.load(tmp_path / 'first/epoch_2.pth', weights_only=True)
    del checkpoint['mmgps_run']['groups']
    if missing == 'all':
        del checkpoint['mmgps_run']
    torch.save(checkpoint, tmp_path / 'old.pth')
    resumed = resume(by_epochs(tmp_path / 'resumed', 5, param_scheduler=in_parts(5)), tmp_path / 'old.pth')
    assert rates(resumed) == rates(train(by_epochs(tmp_path / 'whole', 5, param_scheduler=in_parts(5))))[8:]
    assert 'does not record its settings' in log_of(resumed)
    smaller = resume(by_epochs(tmp_path / 'smaller', 4, batch=2), tmp_path / 'old.pth')
    assert (len(seen(smaller)), smaller.iter) == (16, 32)
    accumulating = by_epochs(tmp_path / 'accumulating')
    accumulating.optim_wrapper.accumulative_counts = 3
    with pytest.raises(ResumeError, match=r'iteration 8 and accumulative_counts=\[3\] do not fit: it does not hold'):
        resume(accumulating, tmp_path / 'old.pth')
    torch.save({**checkpoint, 'mmgps_gradients': [[]]}, tmp_path / 'pending.pth')
    with pytest.raises(ResumeError, match=r'accumulative_counts=\[1\] do not fit: it holds gradients'):
        resume(by_epochs(tmp_path / 'whole-steps'), tmp_path / 'pending.pth')
    checkpoint['meta']['iter'] = 3
    torch.save(checkpoint, tmp_path / 'before.pth')
    with pytest.raises(ResumeError, match='epoch 2 and iteration 3, which no run of 4 iterations an epoch reaches'):
        resume(by_epochs(tmp_path / 'unreached', 4), tmp_path / 'before.pth')
    checkpoint['meta']['iter'] = 9
    torch.save(checkpoint, tmp_path / 'within.pth')
    with pytest.raises(ResumeError, match='iterations of an epoch: 4 -> 8'):
        resume(by_epochs(tmp_path / 'refused', 4, batch=2), tmp_path / 'within.pth')


@DATA_SAMPLERS.register_module(force=True)
class InGroups(BatchSampler):
    def __init__(self, sampler: Any, batch_size: int, drop_last: bool = False, by: int = 1) -> None:
        super().__init__(sampler, batch_size, drop_last)
        self.by = by


def test_another_batch_sampler_is_refused_within_an_epoch(tmp_path: Path) -> None:
    def config(name: str, by: int) -> Config:
        cfg = by_epochs(tmp_path / name)
        cfg.train_dataloader.batch_sampler = dict(type='InGroups', by=by)
        cfg.custom_hooks = [*cfg.custom_hooks, dict(type='CheckpointHook', interval=6, by_epoch=False)]
        return cfg

    train(config('first', 1))
    with pytest.raises(ResumeError, match=r'within epoch 2.*batch_sampler: InGroups\(.*by=1.* -> InGroups\(.*by=2'):
        resume(config('second', 2), tmp_path / 'first/iter_6.pth')


def test_the_seed_is_that_of_the_checkpoint(four_epochs: Path, tmp_path: Path) -> None:
    resumed = resume(by_epochs(tmp_path, randomness=dict(seed=4)), four_epochs / 'iter_6.pth')
    whole = torch.load(four_epochs / 'epoch_4.pth', weights_only=True)['state_dict']
    assert_same_bits(state_of(resumed), whole)


def test_equal_settings_are_described_equally() -> None:
    """Descriptions are short for settings of any length."""
    long = list(range(1000))
    for kind in (list, tuple, torch.tensor, np.array):
        assert described(kind(long)) == described(kind(long))
        assert described(kind(long)) != described(kind([*long[:-1], 0]))
        assert len(str(described(kind(long)))) < 60
    assert described({'a': (1, np.float64(0.5)), 2: None, 'c': object()}) == {'a': [1, 0.5], 2: None, 'c': 'object'}


@DATA_SAMPLERS.register_module(force=True)
class Weighted(WeightedRandomSampler):
    """torch's weighted sampler with the arguments of mmengine; it draws from the global generator."""

    def __init__(self, dataset, seed=None) -> None:
        super().__init__([1.0 + at % 3 for at in range(len(dataset))], len(dataset))


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('name', ['epoch_2', 'iter_6'])
def test_a_sampler_without_a_seed_goes_on_exactly(name: str, workers: int, tmp_path: Path) -> None:
    if workers and name == 'epoch_2':
        pytest.skip('covered within an epoch')

    def config(folder: str) -> Config:
        cfg = by_epochs(tmp_path / folder, workers=workers)
        cfg.train_dataloader.sampler = dict(type='Weighted')
        cfg.custom_hooks = [*cfg.custom_hooks, dict(type='CheckpointHook', interval=6, by_epoch=False)]
        return cfg

    whole = train(config('whole'))
    resumed = resume(config('resumed'), tmp_path / f'whole/{name}.pth')
    assert_same_bits(state_of(resumed), state_of(whole))
    assert len({tuple(pictures) for *_, pictures in seen(whole)}) > 8


@pytest.mark.parametrize('exact', [True, False])
@pytest.mark.parametrize('loop', ['epochs', 'iterations'])
def test_fewer_pictures_than_a_batch_are_refused_before_selecting(
    loop: str, exact: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune_hook, 'select', lambda *args: pytest.fail('selected'))
    cfg = by_epochs(tmp_path, count=3)
    cfg.train_dataloader.drop_last = True
    if loop == 'iterations':
        cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=3)
    if not exact:
        cfg.custom_hooks = cfg.custom_hooks[:1]
    with pytest.raises(ValueError, match='has 3 samples, too few for one batch of 4, and drop_last=True'):
        train(cfg)


def test_an_endless_sampler_fills_batches_with_few_pictures(tmp_path: Path) -> None:
    cfg = by_iterations(tmp_path, 3)
    cfg.train_dataloader.update(drop_last=True)
    cfg.train_dataloader.dataset.count = 3
    assert train(cfg).iter == 3
