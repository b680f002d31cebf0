"""Errors of preparing a set. None of them leaves a half-made set behind."""

from __future__ import annotations

from collections.abc import Iterable

SHOWN = 8


class PrepareError(RuntimeError):
    """A set could not be prepared; the message says what was found, what was expected and what to do."""


class SourceUnavailableError(PrepareError):
    """The set is missing and could not be downloaded."""


class CorruptArchiveError(PrepareError):
    """The archive is truncated, damaged, encrypted or no zip at all."""


class UnsafeArchiveError(PrepareError):
    """The archive holds a name that points outside of it."""


class LayoutError(PrepareError):
    """The folders of the set were not found, or were found more than once."""


class UnpairedError(PrepareError):
    """An image has no mask, a mask has no image, or two files claim one id."""


class SizeMismatchError(PrepareError):
    """A mask is not of its image's size."""


class UnreadableImageError(PrepareError):
    """An image or a mask cannot be decoded whole."""


class EmptyMasksError(PrepareError):
    """No mask of the set has a foreground pixel."""


class CountError(PrepareError):
    """The number of images is not the published one."""


class SplitError(PrepareError):
    """A split list names images that the set does not hold."""


class TargetError(PrepareError):
    """The target folder is in use and may not be replaced."""


def listing(names: Iterable[str]) -> str:
    """Join names for a message: the first eight, in order, and how many more there are."""
    ordered = sorted(names)
    more = f' and {len(ordered) - SHOWN} more' if len(ordered) > SHOWN else ''
    return ', '.join(ordered[:SHOWN]) + more
