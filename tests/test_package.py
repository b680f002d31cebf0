"""What is installed, what is required, and what a config finds without further ado."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, metadata
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from mmgps.utils.requirements import MINIMUM, MissingPackageError, require

ROOT = Path(__file__).resolve().parents[1]
BUILD = 'from setuptools.build_meta import build_sdist, build_wheel; build_wheel("out"); build_sdist("out")'
LIKE_MMDET = """
from mmengine import registry as root
from mmengine.registry import Registry

HOOKS = Registry('hook', parent=root.HOOKS, scope='likedet')
OPTIM_WRAPPERS = Registry('optim_wrapper', parent=root.OPTIM_WRAPPERS, scope='likedet')
"""
RESOLVE = """
from mmengine.registry import HOOKS, OPTIM_WRAPPERS, init_default_scope
from mmgps.utils.requirements import declare_missing_operators

declare_missing_operators()
init_default_scope('{scope}')
with HOOKS.switch_scope_and_registry('{scope}') as hooks:
    assert hooks.scope == '{scope}', hooks.scope
    hook = hooks.build(dict(type='mmgps.GPSHook', k=2))
with OPTIM_WRAPPERS.switch_scope_and_registry('{scope}') as wrappers:
    wrapper = wrappers.get('mmgps.GPSOptimWrapper')
print(hook.method.k, wrapper.__name__)
"""


def python(code: str, cwd: Path, *path: Path) -> subprocess.CompletedProcess:
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(map(str, (*path, ROOT)))}
    return subprocess.run([sys.executable, '-c', code], cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize('name', MINIMUM)
def test_a_missing_mm_package(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingPackageError) as raised:
        require(name)
    sentence = str(raised.value)
    assert '\n' not in sentence
    assert f'needs {name}>={MINIMUM[name]}, which is not installed' in sentence
    assert sentence.endswith('run: pip install -e ".[onedl]"')


@pytest.mark.parametrize(('name', 'version'), [('mmengine', '0.9.1'), ('mmcv', '1.7.2'), ('mmseg', '1.1.2')])
def test_an_mm_package_that_is_too_old(name: str, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    old = ModuleType(name)
    old.__version__ = version
    monkeypatch.setitem(sys.modules, name, old)
    with pytest.raises(MissingPackageError, match=rf'needs {name}>=\S+, found {re.escape(version)}; upgrade') as raised:
        require(name)
    assert '\n' not in str(raised.value)


def test_a_fault_within_an_mm_package_is_not_covered_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'mmseg.py').write_text('import no_such_package')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, 'mmseg', raising=False)
    with pytest.raises(ModuleNotFoundError, match='no_such_package'):
        require('mmseg')


def test_importing_the_engine_without_mmengine_says_what_to_run(tmp_path: Path) -> None:
    answer = python("import sys; sys.modules['mmengine'] = None; import mmgps.engine", tmp_path)
    last = answer.stderr.strip().splitlines()[-1]
    assert 'MissingPackageError: this part of mmgps needs mmengine>=' in last
    assert 'pip install -e ".[onedl]"' in last


@pytest.fixture(scope='module')
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the wheel and the source archive, built from a copy."""
    pytest.importorskip('setuptools')
    copy = tmp_path_factory.mktemp('build') / 'mmgps'
    left_out = shutil.ignore_patterns('.*', '__pycache__', '*.egg-info', 'build', 'dist', 'work_dirs', 'data')
    shutil.copytree(ROOT, copy, ignore=left_out)
    answer = python(BUILD, copy)
    assert answer.returncode == 0, answer.stderr
    return copy / 'out'


@pytest.fixture(scope='module')
def wheel(built: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(next(built.glob('*.whl')))


def test_the_wheel_holds_the_package_whole_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    names = {name for name in wheel.namelist() if '.dist-info/' not in name}
    code = {path.relative_to(ROOT).as_posix() for path in (ROOT / 'mmgps').rglob('*.py')}
    assert code - names == set()
    assert {'mmgps/datasets/prepare/kvasir_val.txt', 'mmgps/report/page.html.j2'} <= names
    assert {name.split('/')[0] for name in names} == {'mmgps'}


def test_the_wheel_holds_the_licence(wheel: zipfile.ZipFile) -> None:
    [licence] = [name for name in wheel.namelist() if name.endswith('/LICENSE')]
    assert b'Apache License' in wheel.read(licence)


def test_the_source_archive_holds_what_readme_names(built: Path) -> None:
    with tarfile.open(next(built.glob('*.tar.gz'))) as archive:
        names = {name.partition('/')[2] for name in archive.getnames()}
    wanted = {'LICENSE', 'README.md', 'CHANGELOG.md', 'constraints.txt', 'tools/train.py', 'tools/dist_train.sh'}
    wanted |= {
        path.relative_to(ROOT).as_posix()
        for folder in ('configs', 'tests', 'docs')
        for path in (ROOT / folder).rglob('*')
        if path.suffix in ('.py', '.md', '.pth')
    }
    assert wanted - names == set()


def requirements(wheel: zipfile.ZipFile, extra: str) -> dict[str, Requirement]:
    """What is installed with ``extra``, by name; the empty one is the base."""
    [metadata] = [name for name in wheel.namelist() if name.endswith('.dist-info/METADATA')]
    lines = re.findall(r'^Requires-Dist: (.*)$', wheel.read(metadata).decode(), re.MULTILINE)
    found = [Requirement(line) for line in lines]
    return {r.name: r for r in found if r.marker is None or (extra and r.marker.evaluate({'extra': extra}))}


def stacks(names: dict[str, Requirement]) -> set[str]:
    openmmlab = {'mmcv', 'mmcv-lite', 'mmengine', 'mmsegmentation', 'mmpretrain', 'mmdet'}
    forks = {f'onedl-{name}' for name in openmmlab}
    kinds = {name: 'onedl' if name in forks else 'openmmlab' for name in {*forks, *openmmlab}}
    return {kinds[name] for name in names if name in kinds}


def test_no_mm_stack_is_required_and_an_extra_brings_one(wheel: zipfile.ZipFile) -> None:
    assert {'torch', 'numpy', 'safetensors'} <= requirements(wheel, '').keys()
    assert stacks(requirements(wheel, '')) == set()
    assert stacks(requirements(wheel, 'test')) == set()
    assert stacks(requirements(wheel, 'onedl')) == {'onedl'}
    assert stacks(requirements(wheel, 'openmmlab')) == {'openmmlab'}


def test_every_requirement_has_a_tested_version(wheel: zipfile.ZipFile) -> None:
    lines = (ROOT / 'constraints.txt').read_text().splitlines()
    tested = {r.name: r.specifier for r in map(Requirement, [line for line in lines if line and line[0] != '#'])}
    wanted = {**requirements(wheel, ''), **requirements(wheel, 'onedl'), **requirements(wheel, 'openmmlab')}
    for name, pin in tested.items():
        version = str(pin).removeprefix('==')
        assert name not in wanted or wanted[name].specifier.contains(version), name
    assert {name for name in wanted if name.removeprefix('onedl-').startswith(('mm', 'torch'))} <= tested.keys()


@pytest.mark.parametrize('scope', ['mmengine', 'mmseg', 'mmpretrain', 'likedet'])
def test_configs_of_every_library_find_the_hook(scope: str, tmp_path: Path) -> None:
    if scope != 'likedet' and find_spec(scope) is None:
        pytest.skip(f'{scope} is not installed')
    (tmp_path / 'likedet').mkdir()
    (tmp_path / 'likedet/__init__.py').touch()
    (tmp_path / 'likedet/registry.py').write_text(LIKE_MMDET)
    answer = python(RESOLVE.format(scope=scope), tmp_path, tmp_path)
    assert answer.returncode == 0, answer.stderr
    # mmengine's logger writes to stdout: a warning about an unknown scope would stand before the result.
    assert answer.stdout.split() == ['2', 'GPSOptimWrapper']


def find_distribution(name: str) -> bool:
    try:
        return bool(metadata(name))
    except PackageNotFoundError:
        return False


def test_one_lowest_version_of_python() -> None:
    """What is required, what the tools check for, and what README says."""
    project = tomllib.loads((ROOT / 'pyproject.toml').read_text())
    lowest = project['project']['requires-python'].removeprefix('>=')
    assert project['tool']['ruff']['target-version'] == f'py{lowest.replace(".", "")}'
    assert project['tool']['mypy']['python_version'] == lowest
    assert f'Python {lowest} or newer' in (ROOT / 'README.md').read_text()
    for line in (ROOT / 'constraints.txt').read_text().splitlines():
        name = line.partition('==')[0]
        if '==' in line and find_distribution(name):
            needed = SpecifierSet(metadata(name).get('Requires-Python') or '')
            assert needed.contains(f'{lowest}.0'), f'{line} needs Python {needed}'
