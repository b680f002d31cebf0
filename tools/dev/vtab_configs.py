"""Write the repetitive configs of VTAB-1k and FGVC: the table of tasks, one base per set and one leaf per model.

python tools/dev/vtab_configs.py            # after a change in mmgps/vtab_tasks.py, or for another model
python tools/dev/vtab_configs.py --check    # names the files that differ from what it would write
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mmgps.compare.markdown import SUITES
from mmgps.vtab_tasks import TASKS

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
MODELS = ('vit-b16', 'swin-b', 'convnext-b')
BEGIN = '# Generated from mmgps/vtab_tasks.py by tools/dev/vtab_configs.py, down to the end of the table.\n'
END = ')\n'
BASE = """_base_ = ['../{suite}.py']
__task = _base_.tasks.{name}
train_dataloader, val_dataloader, test_dataloader = __task.train, __task.test, __task.test
optim_wrapper, param_scheduler, custom_hooks, fitted = __task.optim, __task.schedule, __task.hooks, __task.model
tasks = dict(_delete_=True)
"""
LEAF = """_base_ = ['../../_base_/models/{model}_in21k.py', '../../_base_/{suite}/{name}.py']
model = _base_.fitted
"""


def table() -> str:
    """Format the recipes of VTAB-1k as part of a config."""
    rows = [
        f'    {task.name + "=(":<22}{task.classes:>6}, {task.lr:>6}, {task.batch:>4}, {task.k}, {task.drop_path:>8}),\n'
        for task in TASKS
    ]
    return f'{BEGIN}__tasks = dict(\n    #{"":<20}classes,   lr, batch, K, drop-path\n{"".join(rows)}{END}'


def wanted(configs: Path) -> dict[Path, str]:
    """Return the contents of all generated files below ``configs``.

    Raises:
        ValueError: If the base of VTAB-1k has no table.
    """
    base = configs / '_base_/vtab.py'
    before, begin, rest = base.read_text().partition(BEGIN)
    _, end, behind = rest.partition(f'\n{END}')
    if not begin or not end:
        raise ValueError(f'{base} has no table that begins with {BEGIN!r} and ends with {END!r}; put both lines back')
    found = {base: before + table() + behind}
    for suite, groups in SUITES.items():
        for name in (name for names in groups.values() for name in names):
            found[configs / f'_base_/{suite}/{name}.py'] = BASE.format(suite=suite, name=name)
            for model in MODELS:
                leaf = configs / f'classification/{suite}/{model}_{name}.py'
                found[leaf] = LEAF.format(model=model, suite=suite, name=name)
    return found


def stale(configs: Path) -> list[str]:
    """Return the paths below ``configs`` of files that are missing, outdated or superfluous."""
    found = wanted(configs)
    folders = {path.parent for path in found if path.parent.name in SUITES}
    there = {path for folder in folders for path in folder.glob('*.py')}
    wrong = [path for path, text in found.items() if not path.is_file() or path.read_text() != text]
    return sorted(path.relative_to(configs).as_posix() for path in {*wrong, *(there - found.keys())})


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--check', action='store_true', help='write nothing; fail if a file is outdated')
    return parser.parse_args()


def main() -> None:
    if not parse_args().check:
        for path, text in wanted(CONFIGS).items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    if wrong := stale(CONFIGS):
        sys.exit(f'outdated: {", ".join(wrong)}; run tools/dev/vtab_configs.py and delete files that it does not write')


if __name__ == '__main__':
    main()
