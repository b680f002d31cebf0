"""A killed and resumed run equals an uninterrupted one, bit for bit."""

from pathlib import Path

import pytest
import torch
from tiny import PIPELINE, Stop, TinyPictures, assert_same_bits, state_of, tiny_config, train
from torch.utils.data import DataLoader

import mmgps.engine.hooks.tune_hook as tune_hook
from mmgps.engine.resuming.loaders import seeded_loader


def epoch_based(cfg) -> None:
    cfg.train_dataloader.sampler = dict(type='DefaultSampler', shuffle=True)
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=3)
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', interval=1, by_epoch=True)
    cfg.param_scheduler = [dict(type='CosineAnnealingLR', T_max=3, by_epoch=True)]


def iterations_with_a_finite_sampler(cfg) -> None:
    cfg.train_dataloader.sampler = dict(type='DefaultSampler', shuffle=True)


def accumulation_and_ema(cfg) -> None:
    cfg.optim_wrapper.accumulative_counts = 2
    cfg.custom_hooks.append(dict(type='EMAHook', momentum=0.2))


def within_an_epoch(cfg) -> None:
    """Resume at iteration six, with epochs of four iterations."""
    epoch_based(cfg)
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', interval=2, by_epoch=False)


def within_an_accumulation(cfg) -> None:
    """Resume after two of four gradients were summed."""
    cfg.optim_wrapper.accumulative_counts = 4


def no_seed_in_the_config(cfg) -> None:
    cfg.randomness = dict(seed=None)


VARIANTS = [
    lambda cfg: None,
    epoch_based,
    iterations_with_a_finite_sampler,
    accumulation_and_ema,
    within_an_epoch,
    within_an_accumulation,
    no_seed_in_the_config,
]


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('variant', VARIANTS, ids=['iterations', *[v.__name__ for v in VARIANTS[1:]]])
def test_resumed_equals_uninterrupted(variant, workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if workers and variant in (accumulation_and_ema, within_an_accumulation, no_seed_in_the_config):
        pytest.skip('covered without workers')
    monkeypatch.setattr('time.sleep', lambda seconds: None)
    selections = []
    original = tune_hook.select
    monkeypatch.setattr(tune_hook, 'select', lambda *args: (selections.append(1), original(*args))[1])

    def config(name: str):
        cfg = tiny_config(tmp_path / name, max_iters=12, workers=workers)
        variant(cfg)
        return cfg

    cut = config('cut')
    stopped = cut.copy()
    stopped.custom_hooks = [*cut.custom_hooks, dict(type='StopAt', at=7)]
    with pytest.raises(Stop):
        train(stopped)
    resumed_cfg = config('cut')
    resumed_cfg.resume = True
    resumed = train(resumed_cfg)
    assert len(selections) == 1

    whole_cfg = config('whole')
    if whole_cfg.randomness.seed is None:
        whole_cfg.randomness = dict(seed=resumed.seed)
    whole = train(whole_cfg)
    assert_same_bits(state_of(resumed), state_of(whole))
    last = 'epoch_3.pth' if variant is epoch_based else 'iter_12.pth'
    checkpoints = [torch.load(tmp_path / name / last, weights_only=True) for name in ('cut', 'whole')]
    states = [checkpoint['optimizer']['state'] for checkpoint in checkpoints]
    assert states[0].keys() == states[1].keys()
    for key in states[0]:
        for entry in ('exp_avg', 'exp_avg_sq', 'step'):
            assert torch.equal(states[0][key][entry], states[1][key][entry])
    if variant is accumulation_and_ema:
        assert_same_bits(checkpoints[0]['ema_state_dict'], checkpoints[1]['ema_state_dict'])


def test_workers_and_their_number_do_not_change_the_result(tmp_path: Path) -> None:
    states = [state_of(train(tiny_config(tmp_path / str(workers), workers=workers))) for workers in (0, 1, 2)]
    assert_same_bits(states[1], states[0])
    assert_same_bits(states[2], states[0])


def test_augmentation_differs_between_epochs_and_seeds() -> None:
    """One picture is drawn in two epochs and under two seeds."""
    drawn = []
    for seed, epoch in ((3, 0), (3, 0), (3, 1), (4, 0)):
        loader = DataLoader(TinyPictures(count=1, pipeline=PIPELINE), collate_fn=list)
        loader = seeded_loader(loader, seed, rank=0)
        loader.batch_sampler.sampler.set_epoch(epoch)
        [[sample]] = loader
        drawn.append(sample['inputs'])
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[3])


@pytest.mark.parametrize(
    ('before', 'now', 'message'),
    [
        (dict(k=1), dict(k=2), r"made by gps with .*'k': 1.*asks for gps with .*'k': 2"),
        (dict(score=dict(type='RandomScore', seed=1)), dict(score=dict(type='RandomScore', seed=2)), 'seed=1.*seed=2'),
    ],
)
def test_resuming_under_other_settings_is_refused(before: dict, now: dict, message: str, tmp_path: Path) -> None:
    train(tiny_config(tmp_path, custom_hooks=[dict(type='mmgps.GPSHook', **before)]))
    with pytest.raises(ValueError, match=message):
        train(tiny_config(tmp_path, max_iters=8, resume=True, custom_hooks=[dict(type='mmgps.GPSHook', **now)]))


@pytest.mark.parametrize('methods', [('GPS', 'BiasTuning'), ('BiasTuning', 'GPS'), ('GPS', 'FullTuning')])
def test_resuming_by_another_method_is_refused(methods: tuple[str, str], tmp_path: Path) -> None:
    before, now = (dict(type='mmgps.TuneHook', method=dict(type=f'mmgps.{method}')) for method in methods)
    train(tiny_config(tmp_path, custom_hooks=[before]))
    names = [method.removesuffix('Tuning').lower() for method in methods]
    with pytest.raises(ValueError, match=f'made by {names[0]} with .* asks for {names[1]} with .*select anew in'):
        train(tiny_config(tmp_path, max_iters=8, resume=True, custom_hooks=[now]))


@pytest.mark.parametrize('kinds', [('Masked', 'Compact'), ('Compact', 'Masked')])
def test_resuming_with_another_kind_of_training_is_refused(kinds: tuple[str, str], tmp_path: Path) -> None:
    before, now = (dict(type='mmgps.GPSHook', sparse=dict(type=f'mmgps.{kind}Training')) for kind in kinds)
    train(tiny_config(tmp_path, custom_hooks=[before]))
    message = f'trained with {kinds[0]}Training, the config asks for {kinds[1]}Training'
    with pytest.raises(ValueError, match=message):
        train(tiny_config(tmp_path, max_iters=8, resume=True, custom_hooks=[now]))


def test_without_connections_the_kind_of_training_is_of_no_account(tmp_path: Path) -> None:
    method = dict(type='mmgps.BiasTuning')
    hooks = [
        dict(type='mmgps.TuneHook', method=method, sparse=dict(type=f'mmgps.{kind}Training'))
        for kind in ('Masked', 'Compact')
    ]
    train(tiny_config(tmp_path, custom_hooks=hooks[:1]))
    assert train(tiny_config(tmp_path, max_iters=8, resume=True, custom_hooks=hooks[1:])).iter == 8


def test_resuming_without_a_selection_is_refused(tmp_path: Path) -> None:
    cfg = tiny_config(tmp_path, custom_hooks=[dict(type='mmgps.ExactResumeHook')])
    cfg.optim_wrapper.type = 'OptimWrapper'
    train(cfg)
    with pytest.raises(ValueError, match='holds no selection'):
        train(tiny_config(tmp_path, max_iters=8, resume=True))


def test_loading_is_not_resuming(tmp_path: Path) -> None:
    """``load_from`` starts a new run, which selects on the loaded weights."""
    train(tiny_config(tmp_path / 'a'))
    runner = train(tiny_config(tmp_path / 'b', max_iters=0, load_from=str(tmp_path / 'a/iter_6.pth')))
    first = torch.load(tmp_path / 'a/iter_6.pth', weights_only=True)['state_dict']
    assert_same_bits(state_of(runner), first)
    assert (tmp_path / 'b/selection.safetensors').is_file()


def test_the_history_of_logged_values_is_resumed(tmp_path: Path) -> None:
    train(tiny_config(tmp_path))
    runner = train(tiny_config(tmp_path, max_iters=8, resume=True))
    values, counts = runner.message_hub.get_scalar('train/loss').data
    assert len(values) == len(counts) == 8


def test_the_selecting_hook_alone_writes_checkpoints_that_run_no_code(tmp_path: Path) -> None:
    train(tiny_config(tmp_path, custom_hooks=[dict(type='mmgps.GPSHook')]))
    torch.load(tmp_path / 'iter_6.pth', weights_only=True)
    runner = train(tiny_config(tmp_path, max_iters=8, resume=True, custom_hooks=[dict(type='mmgps.GPSHook')]))
    assert len(runner.message_hub.get_scalar('train/loss').data[0]) == 8
