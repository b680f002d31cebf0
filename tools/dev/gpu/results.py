"""Results as a JSON file and a Markdown file that grow stage by stage."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]


class Results:
    """``results.json`` and ``results.md`` in a folder. Each addition replaces both files.

    Args:
        folder: Folder of the files; created if missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def stages(self) -> list[dict[str, Any]]:
        """All stages so far."""
        path = self.folder / 'results.json'
        found: list[dict[str, Any]] = json.loads(path.read_text()) if path.is_file() else []
        return found

    def add(self, stage: str, rows: Sequence[Row], **about: Any) -> None:
        """Append the ``rows`` of ``stage`` and facts ``about`` them."""
        stages = [*self.stages, dict(stage=stage, about=about, rows=list(rows))]
        self._write('results.json', json.dumps(stages, indent=1))
        self._write('results.md', '\n'.join(map(markdown, stages)))

    def _write(self, name: str, text: str) -> None:
        part = self.folder / f'.{name}.part'
        part.write_text(text + '\n')
        os.replace(part, self.folder / name)


def markdown(stage: Mapping[str, Any]) -> str:
    """Format a stage as a heading, a line of facts and a table."""
    lines = [f'## {stage["stage"]}', '', ', '.join(f'{key}: {value}' for key, value in stage['about'].items()), '']
    rows = stage['rows']
    if rows:
        columns = list(dict.fromkeys(key for row in rows for key in row))
        lines += ['| ' + ' | '.join(columns) + ' |', '|' + '---|' * len(columns)]
        lines += ['| ' + ' | '.join(_cell(row.get(column)) for column in columns) + ' |' for row in rows]
    return '\n'.join([*lines, ''])


def _cell(value: Any) -> str:
    if value is None:
        return ''
    return f'{value:.4g}' if isinstance(value, float) else str(value).replace('|', '\\|').replace('\n', ' ')
