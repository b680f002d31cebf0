"""Parse README and the other documents."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / name for name in ('README.md', 'CONTRIBUTING.md', 'CHANGELOG.md', 'tools/dev/README.md')]


def documents() -> list[Path]:
    return [*DOCUMENTS, *sorted((ROOT / 'docs').rglob('*.md')), *sorted((ROOT / 'configs').rglob('*.md'))]


def blocks(path: Path, language: str) -> list[str]:
    """Return the fenced blocks of ``language``, in order."""
    return re.findall(rf'^```{language}\n(.*?)^```$', path.read_text(), re.DOTALL | re.MULTILINE)


def commands(path: Path) -> list[list[str]]:
    """Return each command of the bash blocks as words, without variable assignments in front.

    ``gps`` replaces the placeholder ``METHOD``.
    """
    text = '\n'.join(blocks(path, 'bash')).replace('\\\n', ' ').replace('METHOD', 'gps')
    lines = text.splitlines()
    parts = [shlex.split(part, comments=True) for line in lines for part in line.split('&&')]
    return [words[next(i for i, w in enumerate(words) if not re.match(r'[A-Z_]+=', w)) :] for words in parts if words]


def anchors(path: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings."""
    headings = re.findall(r'^#+ (.*)$', path.read_text(), re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


def links(path: Path) -> list[str]:
    """Return the targets of links within the repository."""
    return [link for link in re.findall(r'\]\(([^)\s]+)\)', path.read_text()) if '://' not in link]
