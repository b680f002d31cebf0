"""The examples of docs/any_model.md run, in their order."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from counting import total
from documents import ROOT, blocks
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import mmgps

pytestmark = pytest.mark.filterwarnings('ignore')  # those of the frameworks
PAGE = ROOT / 'docs/any_model.md'
HUB = "ViTForImageClassification.from_pretrained('google/vit-base-patch16-224-in21k', num_labels=5)"
SMALL = (
    'ViTForImageClassification(ViTConfig(num_labels=5, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, '
    'intermediate_size=24))'
)


def section(title: str) -> str:
    """The code under a heading, on networks that need no download."""
    text = PAGE.read_text().split(f'\n## {title}\n')[1].split('\n## ')[0]
    code = '\n'.join(part.split('```')[0] for part in text.split('```python\n')[1:])
    for there, here in (
        ('pretrained=True', 'pretrained=False'),
        (HUB, SMALL),
        ('import Trainer', 'import ViTConfig, Trainer'),
        ('learning_rate=1e-3)', "learning_rate=1e-3, use_cpu=True, report_to=[], save_strategy='steps', save_steps=4)"),
        ('logger=False)', "logger=False, accelerator='cpu')"),
        ('Accelerator(', 'Accelerator(cpu=True, '),
    ):
        code = code.replace(there, here)
    return code


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the first section leaves to those behind it."""
    import timm

    monkeypatch.chdir(tmp_path)
    loader = [(torch.randn(4, 3, 160, 160), torch.randint(5, (4,))) for _ in range(4)]

    def loss_of(model: nn.Module) -> Callable[[tuple[Tensor, Tensor]], Tensor]:
        return lambda batch: cross_entropy(model(batch[0]), batch[1])

    return dict(timm=timm, torch=torch, cross_entropy=cross_entropy, mmgps=mmgps, loader=loader, loss_of=loss_of)


def run(title: str, names: dict[str, Any]) -> dict[str, Any]:
    torch.manual_seed(0)
    exec(compile(section(title), f'{PAGE.name}, {title}', 'exec'), names)
    return names


def trained(tuned: mmgps.Tuned) -> int:
    """How many numbers differ from the base, which is restored for it."""
    now = {name: value.clone() for name, value in tuned.model.named_parameters()}
    with tuned.disabled() as base:
        return sum(int((value != now[name]).sum()) for name, value in base.named_parameters() if 'chosen' not in name)


def test_timm(names: dict[str, Any]) -> None:
    code = section('timm, in a loop of your own')
    made = "other = timm.create_model('test_vit', pretrained=False, num_classes=5)\n"
    assert made in code
    code = code.replace(made, f'torch.manual_seed(0)\n{made}')  # the numbers that pretrained=True gives twice
    first = "model = timm.create_model('test_vit', pretrained=False, num_classes=5)\n"
    code = code.replace(first, f'torch.manual_seed(0)\n{first}')
    exec(code, names)
    assert not torch.equal(names['before'], names['after'])
    assert torch.equal(names['other'](names['loader'][0][0]), names['after'])
    assert Path('flowers.safetensors').stat().st_size < 300_000


def test_trainer(names: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers.trainer

    monkeypatch.setattr(transformers.trainer, 'is_datasets_available', lambda: False)  # tests/datasets is none
    run('transformers, with its Trainer', names)
    tuned = names['tuned']
    assert trained(tuned) > 0.9 * total(tuned)
    assert Path('vit.safetensors').is_file()


def test_lightning(names: dict[str, Any]) -> None:
    tuned = run('Lightning', names)['tuned']
    assert 0.9 * total(tuned) < trained(tuned) <= total(tuned)


def test_accelerate(names: dict[str, Any]) -> None:
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(True)
    tuned = run('accelerate', names)['tuned']
    AcceleratorState._reset_state(True)
    assert 0.9 * total(tuned) < trained(tuned) <= total(tuned)
    assert any(Path('work_dirs/state').iterdir())


def test_ddp(names: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    for name, value in dict(RANK=0, WORLD_SIZE=1, MASTER_ADDR='127.0.0.1', MASTER_PORT=port).items():
        monkeypatch.setenv(name, str(value))
    tuned = run('DistributedDataParallel', names)['tuned']
    assert 0.9 * total(tuned) < trained(tuned) <= total(tuned)


def test_mm(names: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip('mmseg')
    from mmseg.utils import register_all_modules
    from tiny import tiny_config

    register_all_modules()
    config = tiny_config(tmp_path)
    assert config.train_dataloader.sampler.type == 'InfiniteSampler'
    names |= dict(config=config, checkpoint=None, iterations=3)
    tuned = run('mm libraries', names)['tuned']
    assert tuned.target == 'backbone'
    assert 0.5 * total(tuned) < trained(tuned) <= total(tuned)


def test_every_block_is_run() -> None:
    titles = [
        'timm, in a loop of your own', 'transformers, with its Trainer', 'Lightning', 'accelerate',
        'DistributedDataParallel', 'mm libraries',
    ]  # fmt: skip
    assert len(blocks(PAGE, 'python')) == sum(
        PAGE.read_text().split(f'\n## {title}\n')[1].split('\n## ')[0].count('```python') for title in titles
    )
