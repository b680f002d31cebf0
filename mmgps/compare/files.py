"""JSON files that appear whole or not at all."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from mmgps.whole_file import write_whole


def write_json(path: Path, content: Any) -> None:
    """Write JSON; a number that is none, which JSON does not know, becomes ``null``."""
    write_whole(path, (json.dumps(_finite(content), indent=2, allow_nan=False) + '\n').encode())


def read_json(path: Path) -> Any:
    """The content, or None if there is no such file or it is damaged."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
