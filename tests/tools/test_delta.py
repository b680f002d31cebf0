"""tools/delta.py, and its files in plain mmseg."""

import io
import json
import os
import resource
import runpy
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import assert_same_bits, tiny_config, train

from mmgps.delta import AppliedDelta, Origin, load_delta, pack_delta, save_delta
from mmgps.engine import init_model, tune_config
from mmgps.engine.deltas.delta_hook import DELTA_KEY
from mmgps.models.convert import convert_vit, extract_backbone
from mmgps.selection import checked_safetensors as sealed
from mmgps.utils.requirements import require

require('mmseg')

from mmseg.apis import inference_model  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
METHODS = {'gps': {'k': 2}, 'lora': {'rank': 2}, 'adapter': {}}


class Run:
    """A run of each method on one base, and calls of the tool."""

    def __init__(self, folder: Path, methods: dict[str, dict]) -> None:
        self.folder, self.base = folder, folder / 'base.pth'
        torch.manual_seed(7)
        torch.save(init_model(tiny_config(folder)).backbone.state_dict(), self.base)
        for name, options in methods.items():
            cfg = tiny_config(folder / name, max_iters=2, custom_hooks=[])
            cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=str(self.base))
            cfg.test_pipeline = [
                dict(type='LoadImageFromFile'),
                dict(type='Resize', scale=(32, 32)),
                dict(type='PackSegInputs'),
            ]
            cfg.dump(folder / f'{name}_plain.py')
            tune_config(cfg, name, options).dump(folder / f'{name}.py')
            train(cfg)

    def __call__(self, *words: object) -> str:
        """Run the tool with ``words`` and return its output."""
        printed = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed):
            patch.setattr(sys, 'argv', ['tools/delta.py', *map(str, words)])
            runpy.run_path(str(ROOT / 'tools/delta.py'), run_name='__main__')
        return printed.getvalue().strip()

    def state(self, name: str) -> dict[str, torch.Tensor]:
        return torch.load(self.folder / name / 'iter_2.pth', weights_only=True)['state_dict']

    def extract(self, name: str) -> Path:
        out = self.folder / f'{name}.safetensors'
        if not out.exists():
            self('extract', self.folder / f'{name}.py', self.folder / name / 'iter_2.pth', out)
        return out


@pytest.fixture(scope='module')
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp('runs'), METHODS)


@pytest.mark.parametrize('name', METHODS)
def test_extracted_and_applied_is_the_checkpoint(run: Run, name: str, tmp_path: Path) -> None:
    delta = run.extract(name)
    config = run.folder / f'{name}.py'
    run('apply', config, delta, tmp_path / 'whole.pth')
    written = torch.load(tmp_path / 'whole.pth', weights_only=True)
    assert_same_bits(written['state_dict'], run.state(name))
    assert written['meta']['iter'] == 2
    said = run('verify', config, delta, '--base', run.base, '--checkpoint', run.folder / name / 'iter_2.pth')
    intact, base, weights = said.splitlines()[-3:]
    assert intact == 'the file is intact'
    assert base.startswith('the base is that of the delta')
    assert weights.startswith('base and delta are')


@pytest.mark.parametrize('name', ['gps', 'lora'])
def test_a_merged_checkpoint_in_a_process_without_mmgps(run: Run, name: str, tmp_path: Path) -> None:
    """With a config without a method, it predicts in plain mmseg what base and delta predict here."""
    delta, plain = run.extract(name), run.folder / f'{name}_plain.py'
    run('merge', run.folder / f'{name}.py', delta, tmp_path / 'merged.pth')
    if name == 'gps':
        assert_same_bits(torch.load(tmp_path / 'merged.pth', weights_only=True)['state_dict'], run.state('gps'))
    words = [ROOT / 'tests/support/plain_mmseg.py', plain, tmp_path / 'merged.pth', tmp_path / 'out']
    environment = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
    answer = subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    found = torch.load(tmp_path / 'out', weights_only=True)
    model = init_model(plain, delta=delta)
    image = np.random.default_rng(0).integers(0, 255, (40, 48, 3), dtype=np.uint8)
    expected = inference_model(model, image).seg_logits.data
    torch.testing.assert_close(found['logits'], expected, rtol=1e-4, atol=1e-4)
    assert found['classes'] == ['background', 'square']
    assert not torch.allclose(expected, inference_model(init_model(plain), image).seg_logits.data, atol=1e-3)


def test_a_delta_that_cannot_be_merged_is_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r'^merge: a delta of adapter cannot be merged.*ship base and delta'):
        run('merge', run.folder / 'adapter.py', run.extract('adapter'), tmp_path / 'merged.pth')
    assert list(tmp_path.iterdir()) == []


def test_info(run: Run) -> None:
    facts = json.loads(run('info', run.extract('gps'), '--json'))
    assert (facts['method'], facts['k'], facts['iteration']) == ('gps', 2, 2)
    assert facts['bytes'] == run.extract('gps').stat().st_size
    delta = load_delta(run.extract('gps'))
    parts = ('connections', 'whole tensors of the base', 'beside the base', 'head')
    assert sum(facts[part] for part in parts) == len(delta)
    assert facts['classes'] == ['background', 'square']
    whole = [n for n in delta.tensors if n.startswith('backbone.')]
    assert facts['whole tensors of the base'] == sum(delta.tensors[name].numel() for name in whole)
    assert facts['config']['model']['backbone']['type'] == 'VisionTransformer'
    assert f'connections             {len(delta.selection)}' in run('info', run.extract('gps'))
    beyond = [value for n, value in delta.tensors.items() if not n.startswith('backbone.')]
    assert facts['bytes of the head'] == sum(value.nbytes for value in beyond) > 0
    beside = json.loads(run('info', run.extract('lora'), '--json'))
    assert (beside['whole tensors of the base'], beside['connections']) == (0, 0)
    assert beside['beside the base'] > 0


def test_diff_and_union(run: Run, tmp_path: Path) -> None:
    gps, lora = run.extract('gps'), run.extract('lora')
    assert 'backbone.layers.0.attn.attn.in_proj_weight' in run('diff', gps, lora)
    assert run('union', gps, lora, tmp_path / 'both').endswith('MiB, 0 connections were in both')
    assert run('union', gps, gps, tmp_path / 'same').endswith(
        f'MiB, {len(load_delta(gps).selection)} connections were in both'
    )
    model, both = init_model(run.folder / 'gps_plain.py'), load_delta(tmp_path / 'both')
    with AppliedDelta(model, both):
        state = model.state_dict()
        name = 'backbone.layers.0.ffn.layers.0.0.weight'
        assert torch.equal(state[name], run.state('gps')[name])
        name = 'backbone.layers.0.attn.attn.lora.b'
        assert torch.equal(state[name], run.state('lora')[name])
        name = 'decode_head.conv_seg.weight'  # in both deltas: the second one wins
        assert torch.equal(state[name], run.state('lora')[name])
        assert not torch.equal(state[name], run.state('gps')[name])


def test_another_base_is_refused(run: Run, tmp_path: Path) -> None:
    weights = torch.load(run.base, weights_only=True)
    weights['layers.1.ln1.weight'] += 1
    torch.save(weights, tmp_path / 'other.pth')
    with pytest.raises(SystemExit, match=r"^verify: .*1 of 28 tensors .* first 'layers\.1\.ln1\.weight'"):
        run('verify', run.folder / 'gps.py', run.extract('gps'), '--base', tmp_path / 'other.pth')


def test_a_checkpoint_of_another_base_is_refused(run: Run, tmp_path: Path) -> None:
    weights = torch.load(run.base, weights_only=True)
    torch.save({name: value + 1 for name, value in weights.items()}, tmp_path / 'other.pth')
    words = (run.folder / 'lora.py', run.folder / 'lora/iter_2.pth', tmp_path / 'd')
    with pytest.raises(SystemExit, match=r'^extract: \d+ parameters .* not trained differ from the base, .*--base'):
        run('extract', *words, '--base', tmp_path / 'other.pth')
    assert not (tmp_path / 'd').exists()


def test_weights_that_differ_from_the_checkpoint_are_reported(run: Run, tmp_path: Path) -> None:
    checkpoint = torch.load(run.folder / 'gps/iter_2.pth', weights_only=True)
    checkpoint['state_dict']['decode_head.conv_seg.bias'][0] += 1
    torch.save(checkpoint, tmp_path / 'c.pth')
    with pytest.raises(SystemExit, match=r"differ from .* in 1 tensors, first 'decode_head\.conv_seg\.bias'"):
        run('verify', run.folder / 'gps.py', run.extract('gps'), '--checkpoint', tmp_path / 'c.pth')


def test_a_checkpoint_without_a_selection_is_refused(run: Run, tmp_path: Path) -> None:
    torch.save({'state_dict': run.state('gps')}, tmp_path / 'c.pth')
    with pytest.raises(SystemExit, match='holds no selection'):
        run('extract', run.folder / 'gps.py', tmp_path / 'c.pth', tmp_path / 'd')
    with pytest.raises(SystemExit, match=f'No such file.*{tmp_path}/absent'):
        run('extract', run.folder / 'gps.py', tmp_path / 'absent', tmp_path / 'd')


def test_the_delta_of_a_thin_checkpoint(run: Run, tmp_path: Path) -> None:
    delta = load_delta(run.extract('gps'))
    torch.save({'state_dict': {}, DELTA_KEY: pack_delta(delta)}, tmp_path / 'thin.pth')
    run('extract', run.folder / 'gps.py', tmp_path / 'thin.pth', tmp_path / 'd')
    assert load_delta(tmp_path / 'd').equals(delta)


def test_the_base_may_be_a_whole_network(run: Run, tmp_path: Path) -> None:
    torch.save({'state_dict': init_model(run.folder / 'gps_plain.py').state_dict()}, tmp_path / 'network.pth')
    checkpoint = run.folder / 'gps/iter_2.pth'
    run('extract', run.folder / 'gps.py', checkpoint, tmp_path / 'd', '--base', tmp_path / 'network.pth')
    assert load_delta(tmp_path / 'd').equals(load_delta(run.extract('gps')))


@pytest.mark.parametrize('tool', ['train', 'test'])
def test_a_delta_instead_of_a_checkpoint_is_refused_with_the_next_step(
    run: Run, tool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [run.folder / 'gps.py', *(['--resume'] if tool == 'train' else []), run.extract('gps')]
    monkeypatch.setattr(sys, 'argv', [f'{tool}.py', *map(str, words)])
    with pytest.raises(
        ValueError, match=r'is a delta, .*tools/delta\.py apply CONFIG .*gps\.safetensors whole\.pth, and'
    ):
        runpy.run_path(str(ROOT / f'tools/{tool}.py'), run_name='__main__')


def test_no_command_overwrites_what_it_reads(run: Run) -> None:
    delta = run.extract('gps')
    config, checkpoint = run.folder / 'gps.py', run.folder / 'gps/iter_2.pth'
    link = run.folder / 'link.pth'
    link.unlink(missing_ok=True)
    link.symlink_to(checkpoint)
    read = (config, checkpoint, delta, run.base)
    before = [path.read_bytes() for path in read]
    for words in (
        ('extract', config, checkpoint, checkpoint),
        ('extract', config, checkpoint, link),
        ('extract', config, checkpoint, config),
        ('extract', config, checkpoint, run.base),  # the initial weights of the config
        ('extract', config, checkpoint, run.folder / 'b.pth', '--base', run.folder / 'b.pth'),
        ('apply', config, delta, delta),
        ('apply', config, delta, run.base),
        ('merge', config, delta, delta),
        ('union', delta, delta, delta),
    ):
        with pytest.raises(SystemExit, match=f'^{words[0]}: .* would overwrite'):
            run(*words)
    assert [path.read_bytes() for path in read] == before


def test_a_checkpoint_is_no_delta(run: Run) -> None:
    with pytest.raises(SystemExit, match=r'info: .*iter_2.pth.*this is a checkpoint'):
        run('info', run.folder / 'gps/iter_2.pth')


def test_names_in_a_delta_are_escaped_for_the_terminal(run: Run) -> None:
    path = run.folder / 'red.safetensors'
    red = replace(load_delta(run.extract('gps')), origin=Origin(dataset_meta={'classes': ['\x1b[31mred', 'a']}))
    save_delta(replace(red, tensors={**red.tensors, 'head.\x1b[31m': torch.zeros(1)}), path)
    for words in (('info', path), ('diff', path, path)):
        printed = run(*words)
        assert '\x1b' not in printed
        assert '\\x1b[31m' in printed


@contextmanager
def full_disk() -> Iterator[None]:
    """Limit file sizes; use it around a single save only, since pytest writes files as well."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_nothing_half_written(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    delta, config, checkpoint = run.extract('gps'), run.folder / 'gps.py', run.folder / 'gps/iter_2.pth'
    commands = {
        'apply.pth': lambda path: run('apply', config, delta, path),
        'merge.pth': lambda path: run('merge', config, delta, path),
        'extract.safetensors': lambda path: run('extract', config, checkpoint, path),
        'union.safetensors': lambda path: run('union', delta, delta, path),
        'backbone.pth': lambda path: extract_backbone(checkpoint, path),
        'vit.pth': lambda path: convert_vit(checkpoint, path),
    }
    for name, command in commands.items():
        (tmp_path / name).write_bytes(b'old')
        with monkeypatch.context() as patch:
            patch.setattr(torch, 'save', full_disk()(torch.save))
            patch.setattr(sealed, 'save_file', full_disk()(sealed.save_file))
            with pytest.raises((OSError, SystemExit), match=f"{name}'? was not written"):
                command(tmp_path / name)
        assert (tmp_path / name).read_bytes() == b'old'
        command(tmp_path / name)
        assert (tmp_path / name).stat().st_size > 2_000
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(commands)
