"""The tutorials run, from the first block to the last."""

from pathlib import Path

import pytest
import torch
from documents import ROOT, blocks

pytest.importorskip('mmseg')

from tiny import assert_same_bits

from mmgps.delta import load_delta


def test_two_tasks_on_one_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = '\n'.join(blocks(ROOT / 'docs/tutorial_deltas.md', 'python'))
    sizes = 'ITERATIONS, FRAMES, WORKERS = 400, 800, 2'
    assert sizes in script
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(script.replace(sizes, 'ITERATIONS, FRAMES, WORKERS = 2, 8, 0'), names)
    bank, plain = names['bank'], names['init_model'](names['cfg'])
    for task in ('polyps', 'stars'):
        trained = torch.load(tmp_path / f'work_dirs/{task}/iter_2.pth', weights_only=True)['state_dict']
        with bank.using(task) as model:
            assert_same_bits(dict(model.state_dict()), trained)
            assert f'{model.dataset_meta["classes"][1]}s' == task
        delta = load_delta(tmp_path / f'work_dirs/shipped/{task}.safetensors')
        assert 'mIoU' in delta.origin.metrics
        assert not torch.equal(
            trained['backbone.layers.0.attn.attn.in_proj_weight'], plain.backbone.layers[0].attn.attn.in_proj_weight
        )
    assert_same_bits(
        {n: v for n, v in bank.model.state_dict().items() if 'backbone' in n},
        {n: v for n, v in plain.state_dict().items() if 'backbone' in n},
    )
    assert torch.equal(names['again'], names['found']['stars'])


def test_the_example_in_plain_pytorch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [example] = [block for block in blocks(ROOT / 'docs/deltas.md', 'python') if 'AppliedDelta' in block]
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(example, names)
    assert load_delta('polyps.safetensors').head().keys() == {'head.weight', 'head.bias'}
    assert names['extract'](names['model'], names['selection'], names['base']).equals(load_delta('polyps.safetensors'))
