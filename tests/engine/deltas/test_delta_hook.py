"""A run writes deltas, and resumes from them."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip('mmseg')

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from shifted import trained
from tiny import PIPELINE, assert_same_bits, state_of, stop_workers, tiny_config, train

from mmgps.delta import DeltaMismatchError, load_delta
from mmgps.engine import init_bank, init_model
from mmgps.engine.deltas.delta_hook import DeltaFolder
from mmgps.engine.resuming.checkpoints import DivergedError
from mmgps.registry import HOOKS


@HOOKS.register_module(force=True)
class PlannedScores(Hook):
    """Replace the scores of the validations by those of a list."""

    priority = 'VERY_HIGH'

    def __init__(self, scores: list[float | None]) -> None:
        self.scores = scores

    def after_val_epoch(self, runner: Runner, metrics: dict[str, Any] | None = None) -> None:
        assert metrics is not None
        metrics['mIoU'] = self.scores[runner.iter // 2 - 1]


@pytest.fixture(scope='module')
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pre-trained weights of the tiny backbone."""
    path = tmp_path_factory.mktemp('base') / 'base.pth'
    torch.manual_seed(5)
    model = init_model(tiny_config(path.parent))
    torch.save(model.backbone.state_dict(), path)
    return path


def config(work_dir: Path, base: Path, method: dict | None = None, **hook: Any) -> Config:
    tune = dict(type='mmgps.TuneHook', method=method or dict(type='mmgps.GPS', k=1))
    deltas = {'type': 'mmgps.DeltaHook', 'by_epoch': False, 'interval': 2, **hook}
    cfg = tiny_config(work_dir, custom_hooks=[tune, deltas, dict(type='mmgps.ExactResumeHook')])
    cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=str(base))
    return cfg


def validated(cfg: Config, scores: list) -> Config:
    cfg.train_cfg.val_interval = 2
    data = dict(type='TinyPictures', count=2, pipeline=[PIPELINE[0], PIPELINE[2]])
    cfg.val_dataloader = dict(batch_size=2, sampler=dict(type='DefaultSampler', shuffle=False), dataset=data)
    cfg.val_cfg, cfg.val_evaluator = dict(type='ValLoop'), dict(type='IoUMetric')
    cfg.custom_hooks = [*cfg.custom_hooks, dict(type='mmgps.PlannedScores', scores=scores)]
    return cfg


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_delta_on_the_base_is_the_trained_model(tmp_path: Path, base: Path) -> None:
    cfg = config(tmp_path, base)
    runner = train(cfg)
    assert names(tmp_path / 'deltas') == [f'iter_{at}.safetensors' for at in (2, 4, 6)]
    delta = load_delta(tmp_path / 'deltas/iter_6.safetensors')
    assert (delta.origin.iteration, delta.k) == (6, 1)
    assert delta.origin.config['model']['backbone']['type'] == 'VisionTransformer'
    assert list(delta.origin.dataset_meta['classes']) == ['background', 'square']
    assert any(name.endswith('running_mean') for name in delta.head())
    model = init_model(cfg, delta=delta)
    assert_same_bits(dict(model.state_dict()), state_of(runner))
    assert list(model.dataset_meta['classes']) == ['background', 'square']
    earlier = init_model(cfg, base, tmp_path / 'deltas/iter_4.safetensors')
    checkpoint = torch.load(tmp_path / 'iter_4.pth', weights_only=True)
    assert_same_bits(dict(earlier.state_dict()), checkpoint['state_dict'])


@pytest.mark.parametrize(
    'method', [dict(type='mmgps.SPTLoRA', budget=0.3, rank=2), dict(type='mmgps.VPTDeep', tokens=3)], ids=['spt', 'vpt']
)
def test_added_modules_travel_in_a_delta(method: dict, tmp_path: Path, base: Path) -> None:
    cfg = config(tmp_path, base, method, interval=6)
    runner = train(cfg)
    bank = init_bank(cfg, base, {'one': tmp_path / 'deltas/iter_6.safetensors'})
    plain = dict(copy.deepcopy(bank.model).state_dict())
    bank.switch('one')
    assert_same_bits(dict(bank.model.state_dict()), state_of(runner))
    bank.switch(None)
    assert_same_bits(dict(bank.model.state_dict()), plain)


def test_how_many_are_kept_and_which_is_the_best(tmp_path: Path, base: Path) -> None:
    cfg = validated(config(tmp_path, base, max_keep=1, save_best='mIoU'), [3.0, 5.0, 4.0])
    train(cfg)
    assert names(tmp_path / 'deltas') == ['best_mIoU_iter_4.safetensors', 'iter_6.safetensors']
    best, last = (load_delta(tmp_path / 'deltas' / name) for name in names(tmp_path / 'deltas'))
    assert (best.origin.iteration, best.origin.metrics['mIoU']) == (4, 5.0)
    assert (last.origin.iteration, last.origin.metrics['mIoU']) == (6, 4.0)
    checkpoint = torch.load(tmp_path / 'iter_4.pth', weights_only=True)['state_dict']
    assert_same_bits(dict(init_model(cfg, delta=best).state_dict()), checkpoint)


@pytest.mark.parametrize(('rule', 'expected'), [('greater', 4), ('less', 6)])
@pytest.mark.parametrize('first', [float('nan'), None])
def test_a_score_that_is_none_is_never_the_best(first, rule: str, expected: int, tmp_path: Path, base: Path) -> None:
    """Deltas follow the rule of mmengine for checkpoints."""
    cfg = validated(config(tmp_path, base, save_best='mIoU', rule=rule, max_keep=1), [first, 5.0, 4.0])
    cfg.default_hooks.checkpoint.update(save_best='mIoU', rule=rule)
    train(cfg)
    assert names(tmp_path / 'deltas') == [f'best_mIoU_iter_{expected}.safetensors', 'iter_6.safetensors']
    assert load_delta(tmp_path / 'deltas/iter_6.safetensors').origin.metrics['mIoU'] == 4.0
    assert [path.name for path in tmp_path.glob('best_*')] == [f'best_mIoU_iter_{expected}.pth']


@HOOKS.register_module(force=True)
class EndsEarly(Hook):
    """End training after iteration ``at``, like ``EarlyStoppingHook``."""

    def __init__(self, at: int) -> None:
        self.at = at

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        if runner.iter + 1 == self.at:
            runner.train_loop.stop_training = True


@pytest.mark.parametrize('by_epoch', [False, True])
@pytest.mark.parametrize('save_last', [False, True])
def test_a_run_that_ends_early_has_its_last_delta(by_epoch: bool, save_last: bool, tmp_path: Path, base: Path) -> None:
    cfg = validated(config(tmp_path, base, interval=20, by_epoch=by_epoch, save_last=save_last), [3.0, 5.0, 4.0])
    if by_epoch:
        cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=30, val_interval=1)
        cfg.train_dataloader.sampler.type, cfg.train_dataloader.dataset.count = 'DefaultSampler', 8
    cfg.param_scheduler = None
    cfg.default_hooks.checkpoint.update(interval=20, by_epoch=by_epoch, save_last=save_last)
    cfg.custom_hooks.append(dict(type='mmgps.EndsEarly', at=4))
    runner = train(cfg)
    assert runner.iter == 4
    name = 'epoch_2' if by_epoch else 'iter_4'
    assert [path.stem for path in tmp_path.rglob('deltas/*')] == [name] * save_last
    assert [path.stem for path in tmp_path.glob('*.pth')] == [name] * save_last
    if save_last:
        delta = load_delta(tmp_path / f'deltas/{name}.safetensors')
        assert (delta.origin.iteration, delta.origin.epoch) == (4, 2 if by_epoch else runner.epoch)
        assert delta.origin.metrics['mIoU'] == 5.0
        assert_same_bits(dict(init_model(cfg, delta=delta).state_dict()), state_of(runner))
        checkpoint = torch.load(tmp_path / f'{name}.pth', weights_only=True)
        assert_same_bits(checkpoint['state_dict'], state_of(runner))
        assert (checkpoint['meta']['iter'], checkpoint['meta']['epoch']) == (4, runner.epoch)


def test_a_finished_run_that_is_resumed_writes_nothing(tmp_path: Path, base: Path) -> None:
    """The last delta has scores; a new one would have none."""
    train(validated(config(tmp_path, base), [3.0, 5.0, 4.0]))
    files = [*tmp_path.glob('*.pth'), *tmp_path.glob('deltas/*')]
    before = {path: path.stat().st_mtime_ns for path in files}
    cfg = validated(config(tmp_path, base), [3.0, 5.0, 4.0])
    cfg.resume = True
    train(cfg)
    assert {path: path.stat().st_mtime_ns for path in files} == before


@HOOKS.register_module(force=True)
class Diverges(Hook):
    """Make numbers NaN at the end of iteration ``at``, before deltas and checkpoints are written."""

    def __init__(self, at: int, name: str) -> None:
        self.at, self.name = at, name

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        if runner.iter + 1 == self.at:
            runner.model.state_dict()[self.name].fill_(float('nan'))


@pytest.mark.parametrize('name', ['backbone.layers.0.attn.attn.in_proj_bias', 'decode_head.convs.0.bn.running_var'])
@pytest.mark.parametrize('thin', [False, True])
@pytest.mark.parametrize('at', [4, 6])
def test_the_last_finite_delta_outlives_a_run_that_diverges(
    name: str, thin: bool, at: int, tmp_path: Path, base: Path
) -> None:
    hook = dict(max_keep=1, save_best='mIoU', thin_checkpoints=thin)
    cfg = validated(config(tmp_path, base, **hook), [3.0, 2.0, 1.0])
    cfg.default_hooks.checkpoint.max_keep_ckpts = 1
    cfg.custom_hooks.insert(0, dict(type='mmgps.Diverges', at=at, name=name))
    what = 'buffers hold NaN' if name.endswith('var') else 'parameters hold NaN or infinity'
    with pytest.raises(DivergedError, match=f'1 of .* {what}, first {name!r}.* No delta of it is written'):
        train(cfg)
    found = names(tmp_path / 'deltas')
    assert found == ['best_mIoU_iter_2.safetensors', f'iter_{at - 2}.safetensors']
    for file in found:
        delta = load_delta(tmp_path / 'deltas' / file)
        assert all(value.isfinite().all() for value in (*delta.values.values(), *delta.tensors.values()))
    assert [path.name for path in tmp_path.glob('*.pth')] == [f'iter_{at - 2}.pth']


def test_a_best_delta_that_a_kill_left_goes_with_the_next_save(tmp_path: Path, base: Path) -> None:
    cfg = validated(config(tmp_path, base, max_keep=1, save_best='mIoU'), [3.0, 5.0, 4.0, 1.0])
    train(cfg)
    best = tmp_path / 'deltas/best_mIoU_iter_4.safetensors'
    others = ['best_mDice_iter_2.safetensors', 'best_mIoU_mine.safetensors']
    for name in ('best_mIoU_iter_2.safetensors', *others):
        (best.parent / name).write_bytes(best.read_bytes())
    cfg = validated(config(tmp_path, base, max_keep=1, save_best='mIoU'), [3.0, 5.0, 4.0, 1.0])
    cfg.train_cfg.max_iters, cfg.resume = 8, True
    train(cfg)
    assert names(tmp_path / 'deltas') == sorted([best.name, 'iter_8.safetensors', *others])


def test_a_checkpoint_has_no_file_elsewhere_removed(tmp_path: Path) -> None:
    mine = tmp_path / 'mine'
    mine.write_text('x')
    folder = DeltaFolder('deltas', 1)
    folder.enter(str(tmp_path / 'run'))
    folder.restore({'kept': [str(mine), '../../mine'], 'best': str(mine), 'best_score': 0.0})
    delta = trained()[1]
    folder.write(delta, 'iter_2')
    folder.write_best(delta, 'best_mIoU_iter_2', 1.0)
    assert mine.exists()
    assert names(tmp_path / 'run/deltas') == ['best_mIoU_iter_2.safetensors', 'iter_2.safetensors']


def test_scores_of_averaged_weights_are_none_of_the_deltas(tmp_path: Path, base: Path) -> None:
    cfg = validated(config(tmp_path, base, interval=6), [3.0, 5.0, 4.0])
    cfg.custom_hooks, cfg.log_level = [*cfg.custom_hooks, dict(type='EMAHook')], 'WARNING'
    train(cfg)
    assert load_delta(tmp_path / 'deltas/iter_6.safetensors').origin.metrics == {}
    assert any('deltas get no scores: EMAHook' in path.read_text() for path in tmp_path.rglob('*.log'))


def test_a_lower_score_can_be_the_better_one(tmp_path: Path, base: Path) -> None:
    train(validated(config(tmp_path, base, interval=6, save_best='mIoU', rule='less'), [5.0, 3.0, 4.0]))
    assert names(tmp_path / 'deltas') == ['best_mIoU_iter_4.safetensors', 'iter_6.safetensors']


def test_epochs(tmp_path: Path, base: Path) -> None:
    cfg = config(tmp_path, base, by_epoch=True)
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=3)
    cfg.train_dataloader.sampler = dict(type='DefaultSampler', shuffle=True)
    cfg.train_dataloader.dataset.count = 8
    cfg.param_scheduler = None
    train(cfg)
    assert names(tmp_path / 'deltas') == ['epoch_2.safetensors', 'epoch_3.safetensors']
    assert load_delta(tmp_path / 'deltas/epoch_3.safetensors').origin.epoch == 3


def stop_after(cfg: Config, iterations: int) -> None:
    """Train ``cfg`` and stop after some iterations, as if the run was killed."""
    runner = Runner.from_cfg(cfg)

    class Stop(Hook):
        def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
            if runner.iter == iterations:
                raise KeyboardInterrupt

    runner.register_hook(Stop())
    try:
        with pytest.raises(KeyboardInterrupt):
            runner.train()
    finally:
        stop_workers(runner)


@pytest.mark.parametrize('method', [None, dict(type='mmgps.LoRA', rank=2)], ids=['gps', 'lora'])
@pytest.mark.parametrize('thin', [True, False])
def test_resumed_equals_uninterrupted(thin: bool, method: dict | None, tmp_path: Path, base: Path) -> None:
    expected = state_of(train(config(tmp_path / 'whole', base, method)))
    hook = dict(thin_checkpoints=thin, max_keep=2)
    stop_after(config(tmp_path / 'cut', base, method, **hook), 5)
    cfg = config(tmp_path / 'cut', base, method, **hook)
    cfg.resume = True
    runner = train(cfg)
    assert_same_bits(state_of(runner), expected)
    again = init_model(cfg, delta=tmp_path / 'cut/deltas/iter_6.safetensors')
    assert_same_bits(dict(again.state_dict()), expected)
    assert names(tmp_path / 'cut/deltas') == ['iter_4.safetensors', 'iter_6.safetensors']


def test_a_thin_checkpoint_has_no_weights_and_is_tested_like_any(tmp_path: Path, base: Path) -> None:
    cfg = config(tmp_path, base, thin_checkpoints=True)
    expected = state_of(train(cfg))
    checkpoint = torch.load(tmp_path / 'iter_6.pth', weights_only=True)
    assert checkpoint['state_dict'] == {}
    assert 'optimizer' in checkpoint
    cfg = config(tmp_path, base, thin_checkpoints=True)
    cfg.load_from = str(tmp_path / 'iter_6.pth')
    cfg.train_cfg = cfg.train_dataloader = cfg.optim_wrapper = cfg.param_scheduler = None
    runner = Runner.from_cfg(cfg)
    runner.call_hook('before_run')
    runner.load_or_resume()
    assert_same_bits(state_of(runner), expected)


def test_resuming_on_another_base_is_refused(tmp_path: Path, base: Path) -> None:
    stop_after(config(tmp_path, base, thin_checkpoints=True), 5)
    weights = torch.load(base, weights_only=True)
    weights['cls_token'] += 1
    torch.save(weights, tmp_path / 'other.pth')
    cfg = config(tmp_path, tmp_path / 'other.pth', thin_checkpoints=True)
    cfg.resume = True
    with pytest.raises(DeltaMismatchError, match=r"VisionTransformer differ, first 'cls_token'"):
        train(cfg)


def test_resuming_without_a_word_of_the_base_is_refused(tmp_path: Path, base: Path) -> None:
    cfg = config(tmp_path, base)
    deltas = cfg.custom_hooks.pop(1)
    train(cfg)
    cfg = config(tmp_path, base)
    cfg.custom_hooks[1], cfg.resume, cfg.train_cfg.max_iters = deltas, True, 8
    with pytest.raises(ValueError, match='does not describe its base'):
        train(cfg)


def test_thin_checkpoints_are_not_published(tmp_path: Path, base: Path) -> None:
    cfg = config(tmp_path, base, thin_checkpoints=True)
    cfg.default_hooks.checkpoint.published_keys = ['meta', 'state_dict']
    with pytest.raises(ValueError, match='published_keys of CheckpointHook would publish files without weights'):
        train(cfg)


@pytest.mark.parametrize(
    ('hook', 'others', 'message'),
    [
        ({'save_best': 'Dise', 'rule': 'greater'}, [], "'Dise' is no score of the validation; expected one of .*mIoU"),
        ({'thin_checkpoints': True}, [dict(type='EMAHook')], 'EMAHook keeps averaged weights.* thin_checkpoints=False'),
        ({'save_best': 'mIoU'}, [dict(type='EMAHook')], 'EMAHook keeps averaged weights.* save_best=None'),
        ({}, [dict(type='mmgps.TuneHook', method=dict(type='mmgps.BiasTuning'))], 'the run has 2 of them'),
    ],
)
def test_what_cannot_be_is_said(hook: dict, others: list, message: str, tmp_path: Path, base: Path) -> None:
    cfg = validated(config(tmp_path, base, **hook), [1.0] * 3)
    cfg.custom_hooks = [*cfg.custom_hooks, *others]
    with pytest.raises(ValueError, match=message):
        train(cfg)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(interval=0), 'leave the hook out'),
        (dict(max_keep=0), 'leave the hook out'),
        (dict(save_best='auto'), 'expected the name of a score'),
    ],
)
def test_options_that_are_none(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HOOKS.build(dict(type='mmgps.DeltaHook', **options))
