"""Imports point one way, and the torch-only layers stay torch-only."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / 'mmgps'

TORCH_ONLY = ('rewiring', 'selection', 'sparse', 'tuning', 'delta', 'tuned')
TOP = ('models', 'datasets', 'evaluation', 'visualization')
TORCH = {'torch', 'numpy', 'safetensors'}
ENGINE = {'mmengine', 'mmcv'}
MM = {*ENGINE, 'mmseg', 'mmpretrain', 'mmdet'}
PLAIN = {*TORCH, 'packaging', 'cv2'}

#: What a layer of mmgps may import of mmgps, beside itself and the utilities.
BELOW = {
    **{layer: {*TORCH_ONLY[:at], 'architectures'} for at, layer in enumerate(TORCH_ONLY)},
    'utils': set(),
    'registry': set(),
    'architectures': set(),
    'vtab_tasks': set(),
    'engine': {*TORCH_ONLY, 'registry'},
    'benchmark': {*TORCH_ONLY, 'registry', 'engine'},
    'report': {*TORCH_ONLY, 'registry', 'engine'},
    'compare': {*TORCH_ONLY, 'registry', 'engine', 'benchmark', 'vtab_tasks'},
    **{layer: {*TORCH_ONLY, 'registry', 'engine', 'vtab_tasks'} for layer in TOP},
}
BELOW['visualization'] |= {'evaluation'}

#: What it may import from outside, beside the standard library.
OUTSIDE = {
    **{layer: {*TORCH} for layer in TORCH_ONLY},
    'utils': {'torch', 'packaging'},
    'registry': {'mmengine'},
    'architectures': set(),
    'vtab_tasks': set(),
    'engine': {*TORCH, *ENGINE},
    'benchmark': {*TORCH, *ENGINE, 'peft', 'matplotlib', 'segment_anything'},
    'compare': {*TORCH, *ENGINE, 'matplotlib'},
    'report': {*TORCH, *ENGINE, 'matplotlib', 'jinja2'},
    **{layer: {*PLAIN, *MM, 'py_sod_metrics', 'mat4py'} for layer in TOP},
}


def imported(source: str, module: str, is_package: bool) -> Iterator[str]:
    """Full names of what ``module`` imports, wherever in it the statement stands."""
    package = module.split('.') if is_package else module.split('.')[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = '.'.join([*above, *([node.module] if node.module else [])])
            yield from (f'{base}.{alias.name}' for alias in node.names)


def violations(source: str, module: str, is_package: bool = False) -> list[str]:
    """What ``module`` imports and may not."""
    layer = module.split('.')[1]
    found = []
    for name in imported(source, module, is_package):
        top, *rest = name.split('.')
        if top == 'mmgps':
            allowed = not rest or rest[0] in {layer, 'utils', *BELOW[layer]}
        else:
            allowed = top in sys.stdlib_module_names or top in OUTSIDE[layer]
        if not allowed:
            found.append(f'{module} imports {name}')
    return found


def modules() -> Iterator[tuple[Path, str]]:
    for path in sorted(PACKAGE.rglob('*.py')):
        parts = path.relative_to(PACKAGE.parent).with_suffix('').parts
        if parts != ('mmgps', '__init__'):
            yield path, '.'.join(parts[:-1] if path.name == '__init__.py' else parts)


def test_imports_point_one_way() -> None:
    found = list(modules())
    assert len(found) > 50
    wrong = [v for path, name in found for v in violations(path.read_text(), name, path.name == '__init__.py')]
    assert wrong == []


@pytest.mark.parametrize(
    ('module', 'source'),
    [
        ('mmgps.selection.scores', 'from mmengine.registry import Registry'),
        ('mmgps.selection.scores', 'def late():\n    import mmcv'),
        ('mmgps.selection.scores', 'from mmgps.sparse import MaskedTraining'),
        ('mmgps.selection.scores', 'from ..tuning.gps import GPS'),
        ('mmgps.selection.scores', 'from .. import tuning'),
        ('mmgps.selection.scores', 'from mmgps import registry'),
        ('mmgps.selection.scores', 'import pandas'),
        ('mmgps.sparse.masked', 'import mmgps.tuning'),
        ('mmgps.tuning.gps', 'from mmgps.engine import tune_config'),
        ('mmgps.delta.delta', 'import mmseg.models'),
        ('mmgps.engine.configs.config', 'from mmseg.models import EncoderDecoder'),
        ('mmgps.engine.configs.config', 'from mmgps.datasets import PolypDataset'),
        ('mmgps.datasets.polyp', 'from mmgps.visualization import draw_overlay'),
        ('mmgps.utils.requirements', 'import mmengine'),
        ('mmgps.utils.progress', 'from mmgps.selection import Role'),
        ('mmgps.utils.text', 'from mmgps.selection import Role'),
        ('mmgps.utils.text', 'import numpy'),
        ('mmgps.vtab_tasks', 'from mmgps.datasets import VTAB'),
    ],
)
def test_the_walk_finds_what_is_forbidden(module: str, source: str) -> None:
    assert len(violations(source, module)) == 1


@pytest.mark.parametrize(
    ('module', 'source'),
    [
        ('mmgps.tuning.gps', 'from mmgps.selection import Role'),
        ('mmgps.engine.hooks.tune_hook', 'from ..resuming.loaders import rebuild'),
        ('mmgps.visualization.sample_view', 'from mmgps.evaluation.foreground import Mask'),
    ],
)
def test_the_walk_lets_pass_what_is_allowed(module: str, source: str) -> None:
    assert violations(source, module) == []


def loaded_by(statement: str) -> set[str]:
    """Top-level packages that a fresh interpreter has loaded after ``statement``."""
    code = f'import sys\n{statement}\nprint(*{{name.partition(".")[0] for name in sys.modules}})'
    answer = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert answer.returncode == 0, answer.stderr
    return set(answer.stdout.split())


def test_importing_mmgps_loads_neither_torch_nor_an_mm_package() -> None:
    loaded = loaded_by('import mmgps')
    assert 'mmgps' in loaded
    assert loaded & {'torch', 'numpy', *MM} == set()


def test_the_torch_only_layers_load_no_mm_package() -> None:
    layers = [layer for layer in TORCH_ONLY if (PACKAGE / layer).is_dir()]
    loaded = loaded_by('\n'.join(f'import mmgps.{layer}' for layer in layers))
    assert 'torch' in loaded
    assert loaded & MM == set()
