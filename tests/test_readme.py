"""What the documents say can be run, is there, and works."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from documents import ROOT, anchors, blocks, commands, documents, links
from packaging.requirements import Requirement
from polyp_files import tree, write_folder

from mmgps import registry
from mmgps.utils import requirements

requirements.require('mmseg')

import mmseg  # noqa: E402
from mmengine.config import Config  # noqa: E402
from tiny import assert_same_bits, state_of, tiny_config, train  # noqa: E402

README = ROOT / 'README.md'
ALL = [(path, words) for path in documents() for words in commands(path)]
TOOLS = [(path, words) for path, words in ALL if any(word.startswith('tools/') for word in words)]
MADE_BY_THE_READER = ('data/', 'work_dirs/', 'pretrain/', 'my_')


def named(words: list[str]) -> str:
    return ' '.join(words)[:70]


def tool_call(words: list[str]) -> tuple[str, list[str]]:
    """The Python tool of a command and the arguments that it gets, also through the launchers."""
    at = next(i for i, word in enumerate(words) if word.startswith('tools/'))
    tool, arguments = words[at], words[at + 1 :]
    if tool == 'tools/dist_train.sh':
        return 'tools/train.py', [arguments[0], *arguments[2:]]
    if tool == 'tools/slurm_train.sh':
        return 'tools/train.py', arguments[2:]
    if tool == 'tools/dev/gpu/run.sh':
        return 'tools/dev/gpu/stages.py', arguments
    return tool, arguments


def parsed(words: list[str], monkeypatch: pytest.MonkeyPatch):
    tool, arguments = tool_call(words)
    if tool.endswith('.sh'):
        pytest.skip(f'{tool} is a shell script')
    monkeypatch.syspath_prepend((ROOT / tool).parent)
    monkeypatch.setattr(sys, 'argv', [tool, *arguments])
    parse_args = runpy.run_path(str(ROOT / tool)).get('parse_args')
    if parse_args is None:
        pytest.skip(f'{tool} parses within its main')
    return parse_args()


def test_the_first_two_commands_install_and_run_the_demo_and_the_tests() -> None:
    demo, tests = blocks(README, 'bash')[:2]
    for command, extras in ((demo, '[onedl]'), (tests, '[onedl,frameworks,test]')):
        assert len(command.splitlines()) == 1
        assert command.startswith(
            f'python3 -m venv .venv && .venv/bin/pip install -c constraints.txt -e ".{extras}" && '
        )
    assert demo.split()[-1] == 'configs/gps_polyp_demo.py'
    assert tests.endswith(' .venv/bin/pytest\n')


def test_continuous_integration_runs_the_second_command() -> None:
    answer = subprocess.run([ROOT / '.ci/run', '--print'], capture_output=True, text=True, check=True)
    assert answer.stdout == blocks(README, 'bash')[1]


@pytest.mark.parametrize(('document', 'words'), ALL, ids=lambda value: named(value) if isinstance(value, list) else '')
def test_files_that_a_command_names_exist(document: Path, words: list[str]) -> None:
    for word in words:
        converter = word.partition('site-packages/mmseg/')[2]
        if converter:
            assert (Path(mmseg.__file__).parent / converter).is_file()
        elif re.fullmatch(r'[\w./-]+\.(py|sh|txt|toml)', word) and not word.startswith(MADE_BY_THE_READER):
            assert (ROOT / word).is_file(), word


@pytest.mark.parametrize('words', [words for _, words in TOOLS], ids=named)
def test_options_that_a_command_names_exist(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    args = parsed(words, monkeypatch)
    if not hasattr(args, 'config'):
        return
    beside = Config.fromfile(ROOT / 'configs/_base_/fsdp.py')  # may be added to any config
    config = {**beside, **Config.fromfile(ROOT / args.config)}
    for key in getattr(args, 'cfg_options', None) or {}:
        at = config
        for part in key.split('.'):
            at = dict(enumerate(at)) if isinstance(at, list) else at
            found = int(part) if part.isdecimal() else part
            assert found in at, key
            at = at[found]


TUNED = [words for path, words in TOOLS if '--tune' in words and path.parent.name != 'results']


@pytest.mark.parametrize('words', TUNED, ids=named)
def test_a_tuned_backbone_has_a_rate_of_its_own(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """At the rate of the head a pre-trained backbone is lost."""
    args = parsed(words, monkeypatch)
    keys = Config.fromfile(ROOT / args.config).optim_wrapper.get('paramwise_cfg', {}).get('custom_keys', {})
    assert args.tune == 'linear' or keys.get('backbone', {}).get('lr_mult', 1) < 1


def test_extras_that_a_command_names_exist() -> None:
    metadata = (ROOT / 'pyproject.toml').read_text()
    extras = {e for path in documents() for e in re.findall(r'\.\[([a-z,]+)\]', path.read_text())}
    assert extras
    for extra in {name for names in extras for name in Requirement(f'mmgps[{names}]').extras for names in extras}:
        assert re.search(rf'^{extra} = \[', metadata, re.MULTILINE), extra


@pytest.mark.parametrize('words', [words for _, words in ALL if words[0] == 'make'], ids=named)
def test_make_targets_exist(words: list[str]) -> None:
    answer = subprocess.run([words[0], '-n', *words[1:]], cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize('path', documents(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path: Path) -> None:
    for link in links(path):
        file, _, anchor = link.partition('#')
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize('path', documents(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_paths_that_a_document_names_exist(path: Path) -> None:
    named = re.findall(r'`((?:mmgps|tests|tools|configs|docs)/[\w./-]+)`', path.read_text())
    assert [name for name in named if not (ROOT / name).exists() and 'SUITE' not in name] == []


@pytest.mark.parametrize('path', documents(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_types_that_a_document_names_exist(path: Path) -> None:
    registries = [value for value in vars(registry).values() if isinstance(value, registry.Registry)]
    for name in set(re.findall(r'\bmmgps\.([A-Z]\w+)', path.read_text())):
        assert any(known.get(f'mmgps.{name}') for known in registries), name


def test_own_images_become_a_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """README's command, on a folder as README describes it."""
    [words] = [words for words in commands(README) if 'my_polyps' in words]
    write_folder(tmp_path / 'my_polyps', tree('images', 'masks', ['a', 'b', 'c'], '.png'))
    (tmp_path / 'my_val_ids.txt').write_text('b\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', words[1:])
    runpy.run_path(str(ROOT / words[1]), run_name='__main__')
    assert (tmp_path / 'data/my_polyps/train.txt').read_text().split() == ['a', 'c']
    assert (tmp_path / 'data/my_polyps/annotations/val/b.png').is_file()


def test_the_keys_for_a_config_of_ones_own(tmp_path: Path) -> None:
    [keys] = [block for block in blocks(README, 'python') if 'custom_hooks' in block]
    changes: dict = {}
    exec(keys, changes)
    del changes['__builtins__']
    assert changes.keys() == {'optim_wrapper', 'custom_hooks'}
    runner = train(tiny_config(tmp_path, max_iters=2, **changes))
    assert runner.iter == 2
    assert (tmp_path / 'selection.safetensors').is_file()
    assert state_of(runner)


def plain_example() -> str:
    [example] = [block for block in blocks(README, 'python') if 'mmgps.tune(' in block]
    return example


def test_the_example_in_plain_pytorch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    setup, tune, rest = plain_example().partition('tuned = ')
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names: dict = {}
    exec(setup, names)
    before = state_dict_of(names['model'])
    exec(tune + rest, names)
    after = state_dict_of(names['model'])
    # One connection of each of 16 neurons and their biases, in both layers of the backbone, and the whole head.
    assert [int((before[name] != value).sum()) for name, value in after.items()] == [16, 16, 16, 16, 32, 2]
    assert_same_bits(state_dict_of(names['base']), after)
    assert 'total' in capsys.readouterr().out
    assert (tmp_path / 'polyps.safetensors').is_file()


def state_dict_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_the_example_needs_no_mm_package(tmp_path: Path) -> None:
    code = f"import sys\nfor name in ('mmengine', 'mmcv', 'mmseg'): sys.modules[name] = None\n{plain_example()}"
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    subprocess.run([sys.executable, '-c', code], env=environment, check=True, cwd=tmp_path)
