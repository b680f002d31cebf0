"""tools/train.py: the effect of each option on a run."""

import runpy
import sys
from pathlib import Path

import pytest
import torch
from tiny import assert_same_bits, tiny_config

import mmgps.engine.hooks.tune_hook as tune_hook
from mmgps.engine import GPSHook, tune_config
from mmgps.selection import unpack_selection

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def config(tmp_path: Path):
    """Write a config like a user's: plain mmseg without a method, six iterations."""

    def write(name: str = 'plain', **changes) -> Path:
        wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-2, weight_decay=0.05))
        cfg = tiny_config(tmp_path / 'unused', **{'optim_wrapper': wrapper, 'custom_hooks': [], **changes})
        cfg.pop('work_dir')
        cfg.custom_imports = dict(imports=['tiny'])
        path = tmp_path / f'{name}.py'
        cfg.dump(path)
        return path

    return write


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run tools/train.py in this process and in an empty folder."""
    monkeypatch.chdir(tmp_path)
    runs = iter(range(100))

    def run(*args) -> None:
        named = [f'experiment_name={tmp_path.name}-{next(runs)}']  # mmengine keeps one logger per name in a process
        arguments = list(map(str, args))
        at = arguments.index('--cfg-options') + 1 if '--cfg-options' in arguments else len(arguments)
        arguments[at:at] = named if at < len(arguments) else ['--cfg-options', *named]
        monkeypatch.setattr(sys, 'argv', ['train.py', *arguments])
        runpy.run_path(str(ROOT / 'tools/train.py'), run_name='__main__')

    return run


def checkpoint(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def test_work_dir(config, tool, tmp_path: Path) -> None:
    path = config(train_cfg=dict(type='IterBasedTrainLoop', max_iters=2))
    tool(path)
    assert (tmp_path / 'work_dirs/plain/iter_2.pth').is_file()
    tool(path, '--work-dir', 'elsewhere/run')
    assert (tmp_path / 'elsewhere/run/iter_2.pth').is_file()


def test_two_methods_on_one_config_use_different_work_dirs(config, tool, tmp_path: Path) -> None:
    """README runs GPS, and then --tune lora on the same config."""
    path = config(custom_hooks=[dict(type='mmgps.GPSHook'), dict(type='mmgps.ExactResumeHook')])
    tool(path, '--tune', 'gps', '--cfg-options', 'train_cfg.max_iters=2')
    first = (tmp_path / 'work_dirs/plain_gps/iter_2.pth').read_bytes()
    tool(path, '--tune', 'lora', '--cfg-options', 'train_cfg.max_iters=2')
    assert (tmp_path / 'work_dirs/plain_gps/iter_2.pth').read_bytes() == first
    saved = checkpoint(tmp_path / 'work_dirs/plain_lora/iter_2.pth')
    assert unpack_selection(saved['mmgps_selection']).method == 'lora'


def test_another_run_is_overwritten_only_on_request(config, tool, tmp_path: Path) -> None:
    path, folder = config(), tmp_path / 'work_dirs/plain_gps'
    tool(path, '--tune', 'gps', '--cfg-options', 'train_cfg.max_iters=4')
    before = {file: file.read_bytes() for file in [*folder.glob('*.*tensors'), *folder.glob('*.pth'), path]}
    options = ('--tune', 'gps', '--tune-options', 'k=2', '--cfg-options', 'train_cfg.max_iters=2')
    with pytest.raises(SystemExit, match=r'plain_gps holds files of another run \(iter_2.pth, .*--overwrite$'):
        tool(path, *options)
    assert {file: file.read_bytes() for file in before} == before
    with pytest.raises(SystemExit):
        tool(path, '--overwrite', '--resume', *options)
    tool(path, '--overwrite', *options)
    assert sorted(file.name for file in folder.glob('*.pth')) == ['iter_2.pth']  # iter_4 belonged to the other run
    assert unpack_selection(checkpoint(folder / 'iter_2.pth')['mmgps_selection']).settings['k'] == 2


def test_cfg_options(config, tool, tmp_path: Path) -> None:
    options = ('train_cfg.max_iters=2', 'optim_wrapper.optimizer.lr=0.5', 'param_scheduler=None')
    tool(config(), '--tune', 'full', '--cfg-options', *options)
    [group] = checkpoint(tmp_path / 'work_dirs/plain_full/iter_2.pth')['optimizer']['param_groups']
    assert group['lr'] == 0.5


def test_resume_from_the_last_checkpoint_and_from_a_path(config, tool, tmp_path: Path, monkeypatch) -> None:
    selections = []
    original = tune_hook.select
    monkeypatch.setattr(tune_hook, 'select', lambda *args: (selections.append(1), original(*args))[1])
    # mmengine ends a scheduler without an end at the end of the run, and keeps this in the checkpoint.
    path = config(param_scheduler=[dict(type='CosineAnnealingLR', T_max=6, by_epoch=False, end=6)])
    tool(path, '--tune', 'gps', '--work-dir', 'whole')
    tool(path, '--tune', 'gps', '--work-dir', 'cut', '--cfg-options', 'train_cfg.max_iters=4')
    assert len(selections) == 2
    tool(path, '--tune', 'gps', '--work-dir', 'other', '--resume', 'cut/iter_2.pth')
    tool(path, '--tune', 'gps', '--work-dir', 'cut', '--resume')
    assert len(selections) == 2
    expected = checkpoint(tmp_path / 'whole/iter_6.pth')
    for folder in ('cut', 'other'):
        found = checkpoint(tmp_path / folder / 'iter_6.pth')
        assert found['meta']['iter'] == 6
        assert_same_bits(found['state_dict'], expected['state_dict'])
    # The run resumed from iteration 2 writes iteration 4 again.
    assert (tmp_path / 'other/iter_4.pth').is_file()


#: Trained connections and other trained values in the tiny ViT. Two blocks of width 16 and hidden width 32 have
#: 16 + 2 * (48 + 16 + 32 + 16) neurons, as many biases, and four norms. LoRA adds factors of rank 8 to the two packed
#: projections, an adapter has biases, and SSF adds a scale and a shift per neuron and per channel of a norm.
MOVES = {
    'gps': (240, 240),
    'gps-random': (240, 240),
    'gps-random5': (5 * 240, 240),
    'gps-snr': (240, 240),
    'gps-shared': (240, 240),
    'gps-no-bias': (240, 0),
    'bias': (0, 240 + 4 * 16),
    'linear': (0, 0),
    'lora': (0, 2 * 8 * (16 + 48)),
    'adapter': (0, 2 * (2 * 8 * 16 + 8 + 16)),
    'vpt-shallow': (0, 10 * 16),
    'vpt-deep': (0, 2 * 10 * 16),
    'ssf': (0, 2 * (240 + 4 * 16)),
}


@pytest.mark.parametrize('method', ['full', *MOVES, 'spt-lora', 'spt-adapter'])
def test_every_method_on_a_plain_config(method: str, config, tool, tmp_path: Path) -> None:
    tool(config(), '--tune', method, '--cfg-options', 'train_cfg.max_iters=2')
    saved = checkpoint(tmp_path / f'work_dirs/plain_{method}/iter_2.pth')
    selection = unpack_selection(saved['mmgps_selection'])
    assert selection.method == ('gps' if method.startswith('gps') else method)
    assert selection.method == ('gps' if method.startswith('gps-') else method)
    backbone = {n.removeprefix('backbone.'): v for n, v in saved['state_dict'].items() if n.startswith('backbone.')}
    if method == 'full':
        assert set(selection.whole) == set(backbone)
    elif method.startswith('spt'):  # 0.5 % of 16 * 192 + 2 * 16 * (48 + 16 + 32 + 32) connections
        assert 0 < len(selection) <= 36
    else:
        assert (len(selection), sum(backbone[name].numel() for name in selection.whole)) == MOVES[method]
    assert (tmp_path / f'work_dirs/plain_{method}/selection.safetensors').is_file() == (method[:3] in ('gps', 'spt'))


def test_a_method_replaces_that_of_the_config(config, tool, tmp_path: Path) -> None:
    hooks = [dict(type='mmgps.GPSHook', k=1, num_batches=1), dict(type='mmgps.ExactResumeHook')]
    path = config(
        optim_wrapper=dict(type='mmgps.GPSOptimWrapper', optimizer=dict(type='SGD', lr=0.1)), custom_hooks=hooks
    )
    tool(path, '--tune', 'linear', '--cfg-options', 'train_cfg.max_iters=2')
    saved = checkpoint(tmp_path / 'work_dirs/plain_linear/iter_2.pth')
    assert unpack_selection(saved['mmgps_selection']).method == 'linear'
    assert not (tmp_path / 'work_dirs/plain_linear/selection.safetensors').exists()


@pytest.mark.parametrize('kind', ['mmgps.GPSHook', GPSHook])
def test_a_method_replaces_that_of_a_hook_wherever_it_stands(kind: object) -> None:
    cfg = tiny_config('nowhere', custom_hooks=[dict(type=kind, num_batches=3)])
    cfg.default_hooks.gps = dict(type=kind)
    tune_config(cfg, 'linear')
    [hook] = [hook for hook in [*cfg.custom_hooks, *cfg.default_hooks.values()] if 'num_batches' in hook]
    assert (hook.type, hook.num_batches) == ('mmgps.TuneHook', 3)
    assert 'gps' not in cfg.default_hooks


def test_tune_options(config, tool, tmp_path: Path) -> None:
    tool(config(), '--tune', 'gps', '--tune-options', 'k=2', '--cfg-options', 'train_cfg.max_iters=2')
    selection = unpack_selection(checkpoint(tmp_path / 'work_dirs/plain_gps/iter_2.pth')['mmgps_selection'])
    assert selection.settings['k'] == 2
    assert len(selection) == 2 * 240


def test_tune_options_need_a_method(config, tool) -> None:
    with pytest.raises(ValueError, match='--tune-options and --tune-target need --tune METHOD'):
        tool(config(), '--tune-options', 'k=2')


def test_a_wrong_method_names_the_nearest(config, tool) -> None:
    with pytest.raises(ValueError, match=r"unknown method 'gsp', expected one of gps, .*; nearest: gps"):
        tool(config(), '--tune', 'gsp')


def test_an_option_that_the_method_does_not_have(config, tool) -> None:
    with pytest.raises(TypeError, match='rank'):
        tool(config(), '--tune', 'gps', '--tune-options', 'rank=8')


def test_amp_without_a_cuda_device(config, tool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(ValueError, match=r'--amp needs a CUDA device and none is available; leave it out'):
        tool(config(), '--amp')


def test_auto_scale_lr(config, tool, tmp_path: Path) -> None:
    options = ('--tune', 'full', '--cfg-options', 'train_cfg.max_iters=2', 'param_scheduler=None')
    with pytest.raises(ValueError, match=r'--auto-scale-lr needs .* add auto_scale_lr = dict\(base_batch_size='):
        tool(config(), '--auto-scale-lr', *options)
    tool(config('scaled', auto_scale_lr=dict(base_batch_size=16)), '--auto-scale-lr', *options)
    [group] = checkpoint(tmp_path / 'work_dirs/scaled_full/iter_2.pth')['optimizer']['param_groups']
    assert group['lr'] == pytest.approx(1e-2 * 4 / 16)


def test_data_root_needs_a_data_set_that_has_one(config, tool) -> None:
    with pytest.raises(ValueError, match='--data-root needs a data set with a data_root'):
        tool(config(), '--data-root', 'anywhere')
