"""Every shipped config builds."""

from pathlib import Path

import pytest

pytest.importorskip('mmseg')

from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from mmgps.registry import HOOKS

ROOT = Path(__file__).resolve().parents[1] / 'configs'
LEAVES = sorted(path for path in ROOT.rglob('*.py') if '_base_' not in path.parts and not path.name.startswith('base_'))
#: Those of classifiers have a file of their own, test_classification_configs.py.
BUILT = [path for path in LEAVES if 'classification' not in path.parts]


@pytest.mark.parametrize('path', BUILT, ids=lambda path: str(path.relative_to(ROOT)))
def test_config_builds(path: Path) -> None:
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    assert hasattr(model, 'backbone')
    for hook in [*cfg.get('custom_hooks', []), *cfg.default_hooks.values()]:
        HOOKS.build(hook)


@pytest.mark.parametrize('path', LEAVES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_leaf_states_only_its_difference(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith('#')]
    assert len(lines) <= 35
    assert lines[0].startswith('_base_')


def test_methods_on_sam_differ_in_method_alone() -> None:
    """The same optimizer, schedule and losses: the table compares methods and nothing else."""
    plain = []
    for method in ('full', 'linear', 'bias', 'gps'):
        cfg = Config.fromfile(ROOT / f'sam/{method}_sam-vit-b_kvasir-1024.py').to_dict()
        assert len(cfg.pop('custom_hooks')) == 1
        plain.append(cfg)
    assert all(cfg == plain[0] for cfg in plain)
    flagship = Config.fromfile(ROOT / 'gps_polyp.py').to_dict()
    assert flagship == Config.fromfile(ROOT / 'sam/gps_sam-vit-b_kvasir-1024.py').to_dict()
    recipe = flagship['optim_wrapper']['optimizer'], flagship['param_scheduler'][0]['eta_min']
    assert recipe == (dict(type='Adam', lr=2e-4), 1e-7)
    assert (flagship['train_cfg']['max_epochs'], flagship['train_dataloader']['batch_size']) == (20, 1)


def test_methods_on_kvasir_differ_in_method_and_rate_alone() -> None:
    """So that the table compares methods and nothing else."""
    configs = {path.stem.split('_')[0]: Config.fromfile(path) for path in (ROOT / 'polyp').glob('[!b]*_kvasir.py')}
    configs['bias'] = Config.fromfile(ROOT / 'polyp/bias_deit-tiny_kvasir.py')
    assert configs.keys() == {'gps', 'linear', 'bias', 'full'}
    stripped = []
    for cfg in configs.values():
        plain = cfg.to_dict()
        plain.pop('custom_hooks')
        plain['optim_wrapper'].pop('paramwise_cfg', None)
        stripped.append(plain)
    assert all(plain == stripped[0] for plain in stripped)
