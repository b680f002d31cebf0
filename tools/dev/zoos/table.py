"""The coverage table in Markdown, from what the sweep left."""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

from .architectures import PARTS, Architecture
from .drive import name_of

HEAD = """# Coverage of the model zoos

GPS swapped into one config of each distinct architecture of the zoos within the installed packages. An architecture is
the types of model, backbone, neck and heads; its smallest config that trains stands for it, on four drawn pictures at
128 pixels or what it accepts. It trains two iterations as it is, and two by `tools/train.py CONFIG --tune gps` from
the same weights. "Yes" under GPS means: it selected and trained; every number that was not chosen kept its bits; names
of the state dict are those of the base, and it loads into the model that was built without mmgps.
Mixed precision, which mmengine has on GPUs only, is left out of the configs. Where two iterations from random weights
diverge, a hundredth of the rate is tried, and said in the row. Nothing else of the optimizer is changed.

[coverage.md](coverage.md) is of the OneDL stack, [coverage_openmmlab.md](coverage_openmmlab.md) of what needs mmdet or
compiled operators of mmcv, on the OpenMMLab stack.

```bash
PYTHONPATH=tools/dev python -m zoos {options}
```
"""


def write_table(
    found: dict[str, list[Architecture]], unread: dict[str, dict[str, str]], folder: Path, to: Path, options: str
) -> None:
    """Write what is known of every architecture in ``found``, by stack, from the results in ``folder``.

    Args:
        options: Of the command, which the page names.
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
    partial = f' **This table is partial: {missing} have not been tried.**' if missing else ''
    share = f' ({100 * tuned / len(plain):.1f} %)' if plain else ''
    return (
        f'{len(results)} architectures, {len(done)} tried; {len(plain)} of them train here without mmgps, and of '
        f'these {tuned}{share} train by GPS. Why the others do not stands in their rows.{partial}\n'
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
        return [each.configs[0], 'says not how to train', '', '']
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
    return '\n'.join(['Configs that mmengine does not read here:\n', *rows, ''])
