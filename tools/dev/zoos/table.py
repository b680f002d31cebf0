"""Coverage table in Markdown, from the results of the sweep."""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

from .architectures import PARTS, Architecture
from .drive import name_of

HEAD = """# Coverage of the model zoos

This page tries GPS on one config of each distinct architecture in the zoos of the installed packages. The types of
model, backbone, neck and heads define an architecture, and its smallest config that trains represents it, on four drawn
pictures at 128 pixels or at the size that it accepts. The config trains two iterations without mmgps, and two by
`tools/train.py CONFIG --tune gps` from the same weights. "Yes" under GPS means that it selected and trained, that every
parameter that was not chosen kept its bits, and that the state dict has the names of the base and loads into the model
built without mmgps. Mixed precision, which mmengine supports on GPUs only, is removed from the configs. If two
iterations from random weights diverge, the config trains at a hundredth of its rate, and the row says so. The optimizer
is otherwise unchanged.

[coverage.md](coverage.md) covers the OneDL stack; [coverage_openmmlab.md](coverage_openmmlab.md) covers configs that
need mmdet or compiled operators of mmcv, on the OpenMMLab stack.

```bash
PYTHONPATH=tools/dev python -m zoos {options}
```
"""


def write_table(
    found: dict[str, list[Architecture]], unread: dict[str, dict[str, str]], folder: Path, to: Path, options: str
) -> None:
    """Write the results in ``folder`` for every architecture in ``found``, by stack.

    Args:
        found: Architectures by stack.
        unread: Unreadable configs and the reasons, by stack.
        folder: Folder of the results.
        to: File to write.
        options: Options of the command, which the page shows.
    """
    parts = [HEAD.format(options=options), _versions(found)]
    for stack, architectures in found.items():
        results = {each: _result(folder / stack / f'{name_of(each)}.json') for each in architectures}
        parts += [f'## {stack}\n', _summary(results), _rows(results), _unread(unread[stack])]
    to.write_text('\n'.join(filter(None, parts)))


def _versions(stacks: Iterable[str]) -> str:
    owners = packages_distributions()
    names = [owners[package][0] for package in (*stacks, 'mmengine', 'mmcv', 'torch')]
    return f'With {", ".join(f"{name} {version(name)}" for name in names)}, on a CPU.\n'


def _result(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text()) if path.exists() else None


def _summary(results: dict[Architecture, dict[str, Any] | None]) -> str:
    done = [result for result in results.values() if result]
    plain = [result for result in done if result.get('plain', {}).get('ok')]
    tuned = sum(result['gps']['ok'] for result in plain)
    missing = len(results) - len(done)
    partial = f' **This table is incomplete: {missing} have not been tried.**' if missing else ''
    share = f' ({100 * tuned / len(plain):.1f} %)' if plain else ''
    return (
        f'{len(results)} architectures, {len(done)} tried; {len(plain)} of them train here without mmgps, and '
        f'{tuned} of these{share} train by GPS. The rows of the others give the reason.{partial}\n'
    )


def _rows(results: dict[Architecture, dict[str, Any] | None]) -> str:
    lines = ['| model | backbone | neck | head | auxiliary | config | plain | GPS | connections |', '|---' * 9 + '|']
    for each, result in results.items():
        if result is None:
            continue
        types = [kind or '-' for kind in each.types[: 1 + len(PARTS)]]
        lines.append('| ' + ' | '.join([*types, *_cells(each, result)]) + ' |')
    return '\n'.join(lines) + '\n'


def _cells(each: Architecture, result: dict[str, Any]) -> list[str]:
    if not each.trains:
        return [each.configs[0], 'defines no training', '', '']
    tuned = result.get('gps', {})
    target = tuned.get('target', 'backbone')
    option = '' if target == 'backbone' else f', with `--tune-target {target}`'
    slower = result['plain'].get('slower', 1)
    rate = '' if slower == 1 else f', at the rate divided by {slower}'
    verdicts = _verdict(result['plain']) + rate, _verdict(tuned) + option
    return [result['config'], *verdicts, str(tuned.get('connections', ''))]


def _verdict(facts: dict[str, Any]) -> str:
    if not facts:
        return ''
    return 'yes' if facts['ok'] else 'no: ' + facts['reason'].replace('|', '/').replace('`', "'")[:120]


def _unread(unread: dict[str, str]) -> str:
    if not unread:
        return ''
    rows = [f'- `{path}`: {reason.splitlines()[0][:120]}' for path, reason in unread.items()]
    return '\n'.join(['Configs that mmengine cannot read here:\n', *rows, ''])
