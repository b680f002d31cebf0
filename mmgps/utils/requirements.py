"""Check that an mm package is installed and recent enough, or say which command installs it."""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

MINIMUM = {'mmengine': '0.10.0', 'mmcv': '2.0.0', 'mmseg': '1.2.0', 'mmpretrain': '1.0.0', 'mmdet': '3.0.0'}
INSTALL = 'pip install -e ".[onedl]"'


class MissingPackageError(ImportError):
    """A required mm package is missing or too old."""


def require(name: str) -> None:
    """Check that the mm package ``name`` can be imported and is recent enough.

    Both distributions of the mm packages, OneDL and OpenMMLab, provide the same import names, so the import decides
    and not the name of a distribution.

    Raises:
        MissingPackageError: Names the command that installs the package.
    """
    from packaging.version import Version

    declare_missing_operators()
    try:
        found = import_module(name).__version__
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise MissingPackageError(
            f'this part of mmgps needs {name}>={MINIMUM[name]}, which is not installed; in a checkout run: {INSTALL}'
        ) from error
    if Version(found) < Version(MINIMUM[name]):
        raise MissingPackageError(
            f'this part of mmgps needs {name}>={MINIMUM[name]}, found {found}; upgrade the stack it came from, '
            f'or in a fresh environment run: {INSTALL}'
        )


@cache
def declare_missing_operators() -> bool:
    """Let a torchvision that was built for CUDA work beside a CPU build of torch.

    The package index offers torchvision only as linked against CUDA. Beside a CPU build of torch its extension does not
    load, and its Python part fails with ``operator torchvision::nms does not exist``, since it describes the shapes of
    two operators that nobody defined. Declaring the two without an implementation lets torchvision, and so mmpretrain
    and mmseg, import and run. Nothing in mmgps calls them.

    Returns:
        Whether the operators were missing.
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
        library.define(f'{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')  # type: ignore[no-untyped-call]
    declare_missing_operators.library = library  # type: ignore[attr-defined]  # it undeclares when collected
    return True
