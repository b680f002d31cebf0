"""Check that an mm package is installed and recent enough, or say which command installs it."""

from __future__ import annotations

from importlib import import_module

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

    from .torchvision_ops import declare_missing_operators

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
