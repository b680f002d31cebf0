"""Let a torchvision that was built for CUDA work beside a CPU build of torch.

The package index offers torchvision only as linked against CUDA. Beside a CPU build of torch its extension does not
load, and importing it ends in ``operator torchvision::nms does not exist``, because a Python module of it describes
shapes of operators that nobody defined. Declaring the two operators that it describes, without an implementation, is
enough for torchvision, and so for mmpretrain and mmseg, to import and run. Nothing in mmgps calls the operators.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_SCHEMA = '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor'


@cache
def declare_missing_operators() -> bool:
    """Declare what a CUDA build of torchvision lacks beside a CPU build of torch.

    Returns:
        Whether that was the case.
    """
    spec = find_spec('torchvision')
    if spec is None or spec.origin is None:
        return False
    import torch

    version = Path(spec.origin).with_name('version.py').read_text()
    if torch.version.cuda or not re.search(r"^__version__ = '[^']*\+cu", version, re.MULTILINE):
        return False
    library = torch.library.Library('torchvision', 'FRAGMENT')  # type: ignore[no-untyped-call]
    for operator in ('nms', 'qnms'):
        library.define(f'{operator}{_SCHEMA}')  # type: ignore[no-untyped-call]
    declare_missing_operators.library = library  # type: ignore[attr-defined]  # it undeclares when collected
    return True
