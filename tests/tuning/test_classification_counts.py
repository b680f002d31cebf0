"""Numbers that GPS trains in the paper's three architectures: counted by hand, and compared with its tables."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip('mmseg')
pytest.importorskip('mmpretrain', reason='mmpretrain is not installed on this stack')

from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from zoo import without_memory

from mmgps.selection import Role, describe
from mmgps.tuning import GPS

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
#: Neurons; then biases, layer scales and tables of position biases, which are trained in full.
EXPECTED = {
    # 12 blocks of width 768: query, key, value 3, output 1, MLP 4 + 1; and the patches.
    'vit-b16': (12 * 9 * 768 + 768, 12 * 9 * 768 + 768, 0, 0),
    # Blocks 2, 2, 18, 2 of widths 128 to 1024, as above; patches; three mergings, without bias. Windows of 7 x 7.
    'swin-b': (
        9 * 12_032 + 128 + 256 + 512 + 1024, 9 * 12_032 + 128, 0, 13 * 13 * (2 * 4 + 2 * 8 + 18 * 16 + 2 * 32),
    ),
    # Blocks 3, 3, 27, 3: depthwise 1, MLP 4 + 1; stem; three downsamplings; a scale a block.
    'convnext-b': (6 * 18_048 + 128 + 256 + 512 + 1024, 6 * 18_048 + 128 + 256 + 512 + 1024, 18_048, 0),
}  # fmt: skip
WIDTH = {'vit-b16': 768, 'swin-b': 1024, 'convnext-b': 1024}


def counts(architecture: str, k: int) -> tuple[int, int, int, int]:
    """Connections of the backbone chosen at ``k``, and the numbers of the roles that are trained in full."""
    cfg = Config.fromfile(CONFIGS / f'_base_/models/{architecture}_in21k.py')
    init_default_scope('mmpretrain')
    with without_memory():
        backbone = MODELS.build(cfg.model.backbone)
    chosen = sum(entry.neurons.neurons * min(k, entry.neurons.fan_in) for entry in GPS(k).candidates(backbone).values())
    roles = (Role.BIAS, Role.SCALE, Role.POSITION_BIAS)
    whole = [sum(e.value.numel() for e in describe(backbone).values() if e.role is role) for role in roles]
    return (chosen, *whole)


@pytest.mark.parametrize('architecture', EXPECTED)
def test_counted_by_hand(architecture: str) -> None:
    neurons, *whole = EXPECTED[architecture]
    assert counts(architecture, 1) == (neurons, *whole)
    assert counts(architecture, 20)[0] == 20 * neurons  # no neuron has fewer inputs: a depthwise one has 49


def recipes(suite: str) -> list[tuple[int, int]]:
    """K and number of classes of each set."""
    tasks = Config.fromfile(CONFIGS / f'_base_/{suite}.py').tasks.values()
    return [(task.hooks[0].k, task.model.head.num_classes) for task in tasks]


def test_the_share_on_vtab_is_that_of_the_paper() -> None:
    """Connections, biases and head of ViT-B/16: 0.245 % on average, where table 3 states 0.25 %."""
    neurons, biases, _, _ = EXPECTED['vit-b16']
    found = [k * neurons + biases + (WIDTH['vit-b16'] + 1) * classes for k, classes in recipes('vtab')]
    assert len(found) == 19
    assert sum(found) / len(found) / 85.8e6 == pytest.approx(0.00245, abs=1e-5)


@pytest.mark.parametrize(
    ('architecture', 'connections', 'whole', 'head'),
    [('vit-b16', 0.653, 0.084, 0.180), ('swin-b', 0.860, 0.172, 0.240), ('convnext-b', 0.860, 0.128, 0.240)],
)
def test_millions_on_fgvc_as_documented(architecture: str, connections: float, whole: float, head: float) -> None:
    """At the K of the authors' scripts, averaged over the five sets; docs/classification.md compares the paper."""
    neurons, *rest = EXPECTED[architecture]
    table = recipes('fgvc')
    assert neurons * sum(k for k, _ in table) / 5e6 == pytest.approx(connections, abs=5e-4)
    assert sum(rest) / 1e6 == pytest.approx(whole, abs=5e-4)
    assert (WIDTH[architecture] + 1) * sum(classes for _, classes in table) / 5e6 == pytest.approx(head, abs=6e-4)
    text = (CONFIGS.parent / 'docs/classification.md').read_text()
    assert f'{connections:.3f} | {whole:.3f} | {head:.3f}' in text
