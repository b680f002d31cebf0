"""From a name on the command line to a prepared set."""

from __future__ import annotations

from pathlib import Path

from mmgps.datasets.prepare.convert import convert
from mmgps.datasets.prepare.fetch import fetch
from mmgps.datasets.prepare.sources import get_source
from mmgps.datasets.prepare.summary import Summary
from mmgps.datasets.prepare.target import check_replaceable
from mmgps.utils.progress import ProgressLine


def prepare(
    name: str,
    out: str | Path | None = None,
    *,
    at: str | Path | None = None,
    download_dir: str | Path | None = None,
    split_file: str | Path | None = None,
    allow_partial: bool = False,
    force: bool = False,
) -> Summary:
    """Prepare the set called ``name``, with progress on standard error.

    Args:
        name: A name in ``mmgps.datasets.prepare.SOURCES``.
        out: Folder to make; ``data/NAME`` by default, with underscores.
        at: Zip or folder at hand; downloaded by default.
        download_dir: Where a downloaded zip is kept; beside ``out`` by default.
        split_file: As for ``convert``.
        allow_partial: As for ``convert``.
        force: As for ``convert``.

    Raises:
        ValueError: If no set is called so.
        PrepareError: One of the classes in ``mmgps.datasets.prepare.errors``; ``out`` is then as it was before.
    """
    source = get_source(name)
    out = Path(out or Path('data', name.replace('-', '_')))
    check_replaceable(out, force)  # before a download that would be in vain
    if at is None:
        at = fetch(source, download_dir or out.parent, ProgressLine(f'downloading {source.title}', 'MB', 1e6))
    progress = ProgressLine(f'converting {source.title}', 'images')
    return convert(source, at, out, split_file=split_file, allow_partial=allow_partial, force=force, progress=progress)
