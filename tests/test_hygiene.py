"""House rules that a machine can check."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_layers import imported, modules

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ('mmgps', 'tools', 'tests', 'configs', 'docs', '.ci')
TEXT = {'.py', '.md', '.txt', '.toml', '.sh', '.in', '.cfg', '.yml', '.yaml', ''}
MAX_LINES = {'mmgps': 320, 'tests': 420}
MAX_TOOL_LINES = 80
#: A module of mmgps that is shorter has at least two users, or is a method of tuning.
MIN_LINES = 40
#: Names that pytest allows in several folders.
SHARED_NAMES = {'conftest.py', '__init__.py'}
#: Bases of the methods, which are looked for by their names.
METHODS = {'TuningMethod', 'WholeParameters', 'InjectionMethod'}
#: The two places that look for inputs beside the repository.
INPUT_PLACES = {'tests/conftest.py', '.ci/run'}

MACHINE_PATH = re.compile(r'(?<![\w.$}~/-])/(?:home|root|tmp|work|Users|mnt|opt|srv)/\w')
INPUT_PATH = re.compile(r'\.\./shared\b')
INDEX = re.compile(r'--(?:extra-)?index-url|--find-links|download\.pytorch\.org/whl')


def files(*folders: str) -> Iterator[Path]:
    """Text files of the repository, those at its top too if no folder is given."""
    if not folders:
        yield from (p for p in ROOT.iterdir() if p.is_file() and p.suffix in TEXT and p.name != '.git')
    for folder in folders or FOLDERS:
        found = (ROOT / folder).rglob('*')
        yield from (p for p in found if p.is_file() and p.suffix in TEXT and '__pycache__' not in p.parts)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def lines_matching(pattern: re.Pattern, *folders: str) -> list[str]:
    return [
        f'{name_of(path)}:{number}: {line.strip()}'
        for path in files(*folders)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if pattern.search(line)
    ]


def test_no_path_of_a_machine() -> None:
    assert lines_matching(MACHINE_PATH) == []


@pytest.mark.parametrize('path', ['/'.join(['', 'home', 'me', 'x']), '/'.join(["open('", 'tmp', 'x'])])
def test_a_path_of_a_machine_is_seen(path: str) -> None:
    assert MACHINE_PATH.search(path)


def test_inputs_beside_the_repository_are_named_in_two_places_only() -> None:
    assert {line.partition(':')[0] for line in lines_matching(INPUT_PATH)} <= INPUT_PLACES


def test_no_package_index_is_named() -> None:
    found = [line for line in lines_matching(INDEX) if not line.startswith(name_of(Path(__file__)))]
    assert found == []


def calls(path: Path, name: str) -> list[str]:
    tree = ast.walk(ast.parse(path.read_text()))
    found = [node for node in tree if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    return [f'{name_of(path)}:{node.lineno}' for node in found if node.func.id == name]


def python_files(*folders: str) -> list[Path]:
    found = [path for path in files(*folders) if path.suffix == '.py']
    assert found
    return found


def test_the_library_prints_nothing() -> None:
    assert [call for path in python_files('mmgps') for call in calls(path, 'print')] == []


def test_the_library_never_ends_the_process() -> None:
    assert [call for path in python_files('mmgps') for name in ('exit', 'quit') for call in calls(path, name)] == []


def test_files_are_short() -> None:
    for folder, most in MAX_LINES.items():
        lengths = {name_of(path): len(path.read_text().splitlines()) for path in python_files(folder)}
        assert {name: length for name, length in lengths.items() if length > most} == {}


def users(sources: dict[str, str], packages: set[str]) -> dict[str, set[str]]:
    """Module to those that import it or a name of it, also through a package, which itself counts as no user.

    Args:
        sources: Full name of a module to its source.
        packages: Those of them that are packages.
    """
    names = {name: list(imported(text, name, name in packages)) for name, text in sources.items()}
    exported = {f'{name}.{each.rpartition(".")[2]}': each for name in packages for each in names[name]}

    def module_of(name: str) -> str:
        passed: set[str] = set()
        while name in exported and name not in passed:
            passed.add(name)
            name = exported[name]
        while name and name not in sources:
            name = name.rpartition('.')[0]
        return name

    found: dict[str, set[str]] = {name: set() for name in sources}
    for name in sources.keys() - packages:
        for module in {module_of(each) for each in names[name]} - {'', name}:
            found[module].add(name)
    return found


def is_method(source: str) -> bool:
    classes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)]
    return any(isinstance(base, ast.Name) and base.id in METHODS for node in classes for base in node.bases)


def splinters() -> dict[str, list[str]]:
    """Short modules of mmgps to the one module or tool that uses them; to none if only a package exports them."""
    found = {name: path for path, name in modules()}
    packages = {name for name, path in found.items() if path.name == '__init__.py'}
    found |= {f'tools.{path.stem}': path for path in (ROOT / 'tools').glob('*.py')}
    sources = {name: path.read_text() for name, path in found.items()}
    return {
        name: sorted(by)
        for name, by in users(sources, packages).items()
        if name.startswith('mmgps.') and name not in packages and len(by) < 2
        if len(sources[name].splitlines()) < MIN_LINES
        if not (name.startswith('mmgps.tuning.') and is_method(sources[name]))
    }


def test_names_of_test_modules_are_unique() -> None:
    """Two of one name in folders without ``__init__`` end a run of all tests at collection."""
    names = Counter(path.name for path in (ROOT / 'tests').rglob('*.py') if path.name not in SHARED_NAMES)
    assert {name: count for name, count in names.items() if count > 1} == {}


def test_no_short_module_serves_another_alone() -> None:
    assert splinters() == {}


def test_users_are_found_through_packages_and_packages_are_none() -> None:
    sources = {
        'a': 'from a.b import One, Two',
        'a.b': 'from .one import One\nfrom .two import Two',
        'a.b.one': 'class One: ...',
        'a.b.two': 'from . import one',
        'a.c': 'from a import One',
        'a.d': 'def late():\n    from .b.two import helper',
        'tools.e': 'import a.c, os',
    }
    assert users(sources, {'a', 'a.b'}) == {
        'a': set(),
        'a.b': set(),
        'a.b.one': {'a.b.two', 'a.c'},
        'a.b.two': {'a.d'},
        'a.c': {'tools.e'},
        'a.d': set(),
        'tools.e': set(),
    }
    assert is_method('class Mine(WholeParameters): ...')
    assert not is_method('class Mine(Operation): ...')


def test_tools_are_one_short_main_without_logic_of_their_own() -> None:
    """Those for users; ``tools/dev`` is for developers and keeps its logic to itself."""
    for path in python_files('tools'):
        if 'dev' in path.parts:
            continue
        assert len(path.read_text().splitlines()) <= MAX_TOOL_LINES, path
        tree = ast.parse(path.read_text())
        defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        assert defined <= {'parse_args', 'main'}, path


def test_no_file_is_loaded_with_code_in_it() -> None:
    assert lines_matching(re.compile(r'weights_only\s*=\s*False|\bpickle\b'), 'mmgps', 'tools') == []


def test_modules_and_public_classes_say_what_they_are() -> None:
    missing = []
    for path in python_files('mmgps', 'tools'):
        if not path.read_text().strip():
            continue
        tree = ast.parse(path.read_text())
        public = [n for n in tree.body if isinstance(n, ast.ClassDef) and not n.name.startswith('_')]
        missing += [f'{name_of(path)} {getattr(n, "name", "")}' for n in [tree, *public] if not ast.get_docstring(n)]
    assert missing == []
