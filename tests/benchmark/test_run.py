"""A run of the benchmark: measurements, JSON, text, and the origin of the weights."""

import json
import os
import runpy
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

import mmgps.benchmark.setup
from mmgps.benchmark import Options, Report, Setup, draw_chart, run_benchmark
from mmgps.benchmark.memory import in_child, peak_bytes, peak_resident
from mmgps.benchmark.recipes import MethodRecipe, default_names
from mmgps.tuning import GPS, FullTuning

ROOT = Path(__file__).resolve().parents[2]
PRETRAINED = dict(type='Pretrained', checkpoint='far/base.pth')
KEYS = ['step_s', 'saved_bytes', 'peak_bytes', 'optimizer_bytes', 'reduced_bytes', 'trained']
#: Parameters in the head of the tiny model: a 3x3 convolution from 16 to 8, its norm, and a classifier from 8 to 2.
HEAD = 8 * 16 * 9 + 2 * 8 + (8 + 1) * 2
#: Neurons of the backbone, each with a bias, and parameters in its four norms of width 16.
NEURONS, NORMS = 240, 4 * 16


def test_json(report: Report, tmp_path: Path) -> None:
    report.write_json(tmp_path / 'found.json')
    found = json.loads((tmp_path / 'found.json').read_text())
    assert {'machine', 'config', 'commit', 'torch', 'threads', 'seed', 'methods'} <= found.keys()
    assert (found['config'], found['torch'], found['threads'], found['seed']) == ('tiny.py', torch.__version__, 1, 0)
    assert found['weights'].startswith('random (seed 0)')
    assert list(found['methods']) == [
        'full', 'linear', 'bias', 'gps-masked-k1', 'gps-compact-k1', 'gps-compact-k2',
    ]  # fmt: skip
    for figures in found['methods'].values():
        assert list(figures) == KEYS
        assert figures['peak_bytes'] is None
        assert figures['step_s'] > 0
    assert found['selection_cost']['choice_s'].keys() == {'1', '2'}


def test_trained_numbers(report: Report) -> None:
    trained = {name: figures.trained for name, figures in report.measurements.items()}
    assert trained.pop('full') > 6000
    assert trained == {
        'linear': HEAD,
        'bias': HEAD + NEURONS + NORMS,
        'gps-masked-k1': HEAD + 2 * NEURONS,
        'gps-compact-k1': HEAD + 2 * NEURONS,
        'gps-compact-k2': HEAD + 3 * NEURONS,
    }


def test_optimizer_and_gradients_hold_only_what_is_trained(report: Report) -> None:
    """AdamW keeps two float32 values per trained value, and a step count per parameter."""
    for name, figures in report.measurements.items():
        dense = report.measurements['full'] if name == 'gps-masked-k1' else figures
        held = figures.reduced_bytes // 4
        assert (held == figures.trained) == (name != 'gps-masked-k1')
        assert held <= dense.trained
        assert 0 < figures.optimizer_bytes - 8 * held <= 4 * 60
        assert (figures.optimizer_bytes - 8 * held) % 4 == 0


def test_activations(report: Report) -> None:
    saved = {name: figures.saved_bytes for name, figures in report.measurements.items()}
    assert 0 < saved['linear'] < saved['bias'] < saved['gps-compact-k1'] < saved['full']
    assert saved['gps-compact-k1'] < saved['gps-masked-k1'] <= saved['full']


def test_the_data_decide_the_selection(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """One pass over the config's batches with its weights provides the selections for every K."""
    passes, seen = [], {}
    gradients = Setup.gradients

    def watched_pass(self, model, batches):
        passes.append(gradients(self, model, batches))
        return passes[-1]

    def watched_rig(self, setup, model, recipe):
        seen[len(recipe.selection)] = recipe.selection
        original(self, setup, model, recipe)

    original = mmgps.benchmark.setup.Rig.__init__
    monkeypatch.setattr(Setup, 'gradients', watched_pass)
    monkeypatch.setattr(mmgps.benchmark.setup.Rig, '__init__', watched_rig)
    options = Options(['gps-compact-k1', 'gps-compact-k3'], steps=1, warmup=0, selection_batches=3, peak=False)
    run_benchmark(setup, options, 'tiny.py')
    model = setup.build()
    expected = gradients(setup, model, setup.batches(3))
    assert len(passes) == 1
    assert any(gradient.abs().max() > 0 for gradient in expected.values())
    for k in (1, 3):
        assert seen[k * NEURONS].equals(GPS(k).select(model.backbone, expected))
    assert not seen[NEURONS].equals(GPS(1).select(model.backbone, gradients(setup, model, setup.batches(1))))


def test_text(report: Report) -> None:
    lines = report.text().splitlines()
    rows = {line.split('|')[1].strip(): [c.strip() for c in line.split('|')[2:-1]] for line in lines if line[:1] == '|'}
    head, bias, compact = rows['method'], rows['bias'], rows['gps-compact-k1']
    assert bias[head.index('step / bias')] == bias[head.index('saved / bias')] == '1.000'
    ratio = report.measurements['gps-compact-k1'].step_s / report.measurements['full'].step_s
    assert compact[head.index('step / full')] == f'{ratio:.3f}'
    assert compact[head.index('step / lora-r8')] == '-'
    assert compact[head.index('peak MiB')] == '-'
    assert rows['step: gps-compact-k1 / lora-r8'][-1] == 'not measured'
    assert rows['reduced bytes per number: gps-compact-k1 / bias'] == ['1.000', '1.01', '1.01', 'meets the aim']
    assert 'selection pass over 2 batches' in lines[-1]


def test_chart(report: Report, tmp_path: Path) -> None:
    draw_chart(report, tmp_path / 'chart.png')
    assert (tmp_path / 'chart.png').read_bytes()[:8] == b'\x89PNG\r\n\x1a\n'


def test_default_names() -> None:
    names = default_names([1, 5])
    assert names == ['full', 'linear', 'bias', 'lora-r8', 'gps-masked-k1', 'gps-compact-k1', 'gps-compact-k5']


def test_unknown_method(setup: Setup) -> None:
    with pytest.raises(ValueError, match=r"unknown method 'gps-compact', expected .*; nearest: gps-compact-k1"):
        run_benchmark(setup, Options(['bias', 'gps-compact']), 'tiny.py')


def test_methods_with_options(setup: Setup) -> None:
    names = ['bias', 'bias+fused', 'full', 'full+lean', *(f'gps-compact-k1{end}' for end in ('', '+lean', '+leaner'))]
    report = run_benchmark(setup, Options(names, steps=1, warmup=0, selection_batches=1, peak=False), 'tiny.py')
    saved = {name: figures.saved_bytes for name, figures in report.measurements.items()}
    assert list(saved) == names
    assert saved['bias+fused'] < saved['bias']
    assert saved['full+lean'] < 0.9 * saved['full']
    assert saved['gps-compact-k1+leaner'] < saved['gps-compact-k1+lean'] < saved['gps-compact-k1']
    trained = {name: figures.trained for name, figures in report.measurements.items()}
    assert trained['full+lean'] == trained['full']
    with pytest.raises(ValueError, match=r"unknown method 'bias\+leen', .* \+leaner; nearest: bias\+lean"):
        run_benchmark(setup, Options(['bias+leen']), 'tiny.py')


def test_without_peft(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'peft', None)
    options = Options(['bias', 'lora-r8'], steps=1, warmup=0, selection_batches=1, peak=False)
    found = run_benchmark(setup, options, 'tiny.py')
    assert list(found.measurements) == ['bias']
    assert 'lora-r8 is left out: peft is not installed; run: pip install -c constraints.txt peft' in found.text()


def test_lora_on_another_architecture_is_left_out(benchmark_config) -> None:
    pytest.importorskip('peft')
    cfg = benchmark_config.copy()
    cfg.model = dict(
        type='EncoderDecoder',
        data_preprocessor=cfg.model.data_preprocessor,
        backbone=dict(type='ResNetV1c', depth=18, base_channels=8, norm_cfg=dict(type='SyncBN')),
        decode_head={**cfg.model.decode_head, 'in_channels': 64, 'in_index': 3},
        test_cfg=dict(mode='whole'),
    )
    options = Options(['linear', 'lora-r8'], steps=1, warmup=0, selection_batches=1, peak=False)
    found = run_benchmark(Setup(cfg), options, 'resnet.py')
    assert found.left_out == ['lora-r8 is left out: ResNetV1c is no plain ViT (linear layers behind one convolution '
                              'that makes patches)']  # fmt: skip
    assert found.bars == []


def test_a_failing_child_process() -> None:
    assert in_child('a sum', sum, [1, 2]) == 3
    with pytest.raises(RuntimeError, match='the process that measures nothing failed: ValueError: invalid literal'):
        in_child('nothing', int, 'no number')
    with pytest.raises(RuntimeError, match='the process that measures its own end failed: BrokenProcessPool'):
        in_child('its own end', os._exit, 1)


@pytest.mark.slow
def test_peak_memory_of_a_child_process(setup: Setup) -> None:
    """The peak is not that of this process, although a child on Linux inherits the parent's ``ru_maxrss``."""
    ballast = torch.ones(2**28)
    batches = setup.batches(1)
    assert 2**26 < peak_bytes(setup, MethodRecipe(FullTuning()), batches) < peak_resident()
    del ballast


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_on_cuda(benchmark_config) -> None:
    options = Options(['full', 'bias', 'gps-compact-k1'], steps=1, warmup=1, selection_batches=1)
    found = run_benchmark(Setup(benchmark_config, device='cuda'), options, 'tiny.py')
    peaks = {name: figures.peak_bytes for name, figures in found.measurements.items()}
    assert all(peak and peak >= found.measurements[name].saved_bytes for name, peak in peaks.items())
    assert peaks['bias'] < peaks['full']


def test_tool(config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(sys, 'argv', ['benchmark.py', str(config_file), '--methods', 'bias', 'gps-compact-k1'])
    sys.argv += ['--steps', '1', '--warmup', '1', '--selection-batches', '1', '--no-rss', '--batch-size', '2']
    sys.argv += ['--json', str(tmp_path / 'found.json'), '--png', str(tmp_path / 'found.png')]
    runpy.run_path(str(ROOT / 'tools/benchmark.py'), run_name='__main__')
    assert '| gps-compact-k1 |' in capsys.readouterr().out
    found = json.loads((tmp_path / 'found.json').read_text())
    assert (found['batch_size'], found['steps'], list(found['methods'])) == (2, 1, ['bias', 'gps-compact-k1'])
    assert (tmp_path / 'found.png').is_file()


@pytest.mark.parametrize(
    ('config', 'name'),
    [
        ('configs/gps_polyp.py', 'sam_vit_b_01ec64.pth'),
        ('configs/gps_polyp_demo.py', 'vit-mini_shapes.pth'),
        ('configs/polyp/gps_deit-tiny_kvasir.py', 'deit_tiny_mmseg.pth'),
    ],
)
def test_weights_of_a_shipped_config(config: str, name: str) -> None:
    assert Setup(Config.fromfile(ROOT / config)).weights() == name


@pytest.mark.parametrize(
    'backbone',
    [
        dict(init_cfg=PRETRAINED),
        dict(init_cfg=dict(type='anything.OfOnesOwn', checkpoint='far/base.pth')),
        dict(init_cfg=[dict(type='Kaiming', layer='Conv2d'), PRETRAINED]),
        dict(type='mmgps.TunedBackbone', backbone=dict(init_cfg=PRETRAINED)),
        dict(pretrained='far/base.pth'),
    ],
)
def test_weights_in_every_form_of_config(backbone: dict) -> None:
    assert Setup(Config(dict(model=dict(init_cfg=None, backbone=backbone)))).weights() == 'base.pth'


def test_weights_without_a_file() -> None:
    model = dict(backbone=dict(init_cfg=dict(type='Normal', layer='Linear'), pretrained=None))
    assert Setup(Config(dict(model=model)), seed=4).weights() == 'random (seed 4), the config names no file'
