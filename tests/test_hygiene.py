"""House rules that a machine can check."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ('mmgps', 'tools', 'tests', 'configs', 'docs', '.ci')
TEXT = {'.py', '.md', '.txt', '.toml', '.sh', '.in', '.cfg', '.yml', '.yaml', ''}
MAX_LINES = {'mmgps': 320, 'tests': 420}
MAX_TOOL_LINES = 80
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
