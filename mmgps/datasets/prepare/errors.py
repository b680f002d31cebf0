"""Errors while preparing a set. None of them leaves a half-made set behind."""

from __future__ import annotations

from collections.abc import Iterable

SHOWN = 8


class PrepareError(RuntimeError):
    """A set could not be prepared; the message says what was found, what was expected and what to do."""


class SourceUnavailableError(PrepareError):
    """The set is missing and could not be downloaded."""


class CorruptArchiveError(PrepareError):
    """The archive is truncated, damaged, encrypted or not a zip."""


class UnsafeArchiveError(PrepareError):
    """The archive holds a name that leads outside, or more content than images can have."""


class LayoutError(PrepareError):
    """The folders or lists of the set are missing, unreadable, or present more than once."""


class UnpairedError(PrepareError):
    """An image has no mask, a mask has no image, or two files claim one id."""


class SizeMismatchError(PrepareError):
    """A mask and its image differ in size."""


class UnreadableImageError(PrepareError):
    """An image or a mask cannot be decoded."""


class EmptyMasksError(PrepareError):
    """No mask of the set has a foreground pixel."""


class CountError(PrepareError):
    """The number of images or classes is not the published one."""


class SplitError(PrepareError):
    """A split list names images that the set does not hold."""


class TargetError(PrepareError):
    """The target folder is in use and may not be replaced."""


def listing(names: Iterable[str]) -> str:
    """Join names for a message: the first eight in sorted order, and the number of the others."""
    ordered = sorted(names)
    more = f' and {len(ordered) - SHOWN} more' if len(ordered) > SHOWN else ''
    return ', '.join(ordered[:SHOWN]) + more
