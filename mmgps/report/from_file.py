"""The report of a selection that was made before."""

from __future__ import annotations

import os
from collections.abc import Sequence

from mmengine.config import Config

from mmgps.delta import check_injection, inject_missing
from mmgps.engine import build_plain, find_backbone

from .report_hook import read_selection
from .write import SelectionReport


def report_of_file(
    cfg: Config,
    path: str | os.PathLike[str],
    target: str = 'backbone',
    other: str | os.PathLike[str] | None = None,
    names: Sequence[str] = ('this task', 'the other task'),
) -> SelectionReport:
    """Report what a file selects. The weights do not matter, so none are loaded.

    Args:
        cfg: Config of the run, of which the architecture is used.
        path: A selection or a delta.
        target: Path of the backbone within the model.
        other: Selection or delta of another task.
        names: Of the two tasks.

    Raises:
        SelectionMismatchError: If it was made for another architecture.
    """
    selection = read_selection(path)
    backbone = find_backbone(build_plain(cfg), target)
    beside = set(selection.whole) - dict(backbone.named_parameters()).keys()
    check_injection(backbone, selection, dict.fromkeys(beside))
    inject_missing(backbone, selection, beside)
    return SelectionReport(backbone, selection, other=None if other is None else read_selection(other), names=names)
