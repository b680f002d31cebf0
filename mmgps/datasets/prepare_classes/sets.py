"""What a set of images with a class each is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmgps.utils.download import Checksum


@dataclass(frozen=True)
class Part:
    """One published file of a set.

    Args:
        name: Of the file.
        root: Folder within an archive whose content is taken; empty for all of it.
        into: Folder of the set that it goes to; empty for its top.
        url: A stable public address, or None where there is none.
        checksum: What the file at ``url`` hashes to, where that is known.
        plain: Whether the file is copied as it is, not unpacked.
    """

    name: str
    root: str = ''
    into: str = ''
    url: str | None = None
    checksum: Checksum | None = None
    plain: bool = False


@dataclass(frozen=True)
class Split:
    """A part of a set that a data set reads.

    Args:
        name: Of the split.
        images: Number of images that it is published with.
        dataset: Config of the data set, without ``data_root``.
    """

    name: str
    images: int
    dataset: Mapping[str, Any]


@dataclass(frozen=True)
class ClassSet:
    """A published set.

    Args:
        name: Its name on the command line.
        title: Its published name.
        holds: Names at the top of the finished folder; nothing else is unpacked.
        parts: Its files. Any of them may be missing where a folder has its content unpacked.
        splits: What is counted at the end.
        where: Where to get it, in words.
        cite: The publication to cite.
        classes: Number of classes, which the first split has to have all; None where no single number is published.
        written: Those of ``holds`` that ``finish`` writes.
        finish: Called with the folder before it is counted, to write what the archives do not hold.
    """

    name: str
    title: str
    holds: frozenset[str]
    parts: tuple[Part, ...]
    splits: tuple[Split, ...]
    where: str
    cite: str
    classes: int | None = None
    written: tuple[str, ...] = ()
    finish: Callable[[Path], None] | None = field(default=None, compare=False)
